from __future__ import annotations

import io

import pytest

from textune.data.encodings import as_utf_8, check_encoding, likely_encoding
from textune.errors import ConfigError

TEXTS = {
    "cp949": "문장,감정\n이 영화 정말 재미있어요,긍정\n시간이 아까웠습니다 ㅠㅠ,부정\n배우 연기가 좋네요 ㅋㅋㅋ,긍정\n",
    "cp932": "文章,感情\nこの映画はとても良かった,肯定\nつまらないと思います。,否定\n",
    "euc_jp": "文章,感情\nこの映画はとても良かった,肯定\nつまらないと思います。,否定\n",
    "gb18030": "文本,标签\n这部电影很好，我很喜欢,好\n他们的服务是最差的,差\n这个东西不好，我不要了,差\n",
    "big5": "文本,標籤\n這部電影很好，我很喜歡,好\n他們的服務是最差的,差\n這個東西不好，我不要了,差\n",
    "cp1251": "текст,метка\nОтличный фильм, мне понравилось,да\nПлохое обслуживание и долго,нет\n",
    "cp1252": "text,label\nLe café était très bon,oui\nGut – aber viel zu teuer für „so was“,nein\nplain,non\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_encodings_are_recognised(encoding: str) -> None:
    found = likely_encoding(TEXTS[encoding].encode(encoding))
    assert found is not None
    assert found[0] == encoding


@pytest.mark.parametrize("text", ["plain\n", "".join(TEXTS.values()), "좋아요\n"])
def test_utf_8_is_not_taken_for_another(text: str) -> None:
    assert likely_encoding(text.encode()) is None


def test_one_bad_line_makes_no_other_encoding() -> None:
    assert likely_encoding("좋아요\n최악이에요\n".encode() + "caf\xe9\n".encode("latin-1")) is None
    found = likely_encoding(b"plain\n" + "caf\xe9\n".encode("latin-1"))
    assert found is not None and found[0] == "cp1252"


def test_bytes_that_are_no_text_are_in_no_encoding() -> None:
    assert likely_encoding(bytes(range(256)) * 4) is None


@pytest.mark.parametrize("encoding", [*TEXTS, "utf-16", "utf-32-be", "utf-8"])
@pytest.mark.parametrize("size", [1, 7, -1])
def test_any_encoding_reads_as_utf_8(encoding: str, size: int) -> None:
    text = TEXTS.get(encoding, TEXTS["cp949"])
    stream = as_utf_8(io.BytesIO(text.encode(encoding)), encoding)
    assert b"".join(iter(lambda: stream.read(size), b"")) == text.encode()


@pytest.mark.parametrize(
    ("data", "encoding"), [(b"a\xff\xffb\nc\n", "cp949"), (b"a\0\n\0\0\xd8b\0\nX", "utf-16-le"), (b"a\x81", "cp949")]
)
def test_what_cannot_be_decoded_stays_wrong(data: bytes, encoding: str) -> None:
    read = as_utf_8(io.BytesIO(data), encoding).read()
    assert read.startswith(b"a")
    with pytest.raises(UnicodeDecodeError):
        read.decode()


@pytest.mark.parametrize("name", ["cp949", "CP949", "euc-kr", "utf8", "UTF-16", "latin1", "shift_jis"])
def test_encodings_that_can_be_named(name: str) -> None:
    assert check_encoding(name) == ("utf-8" if name == "utf8" else name)


@pytest.mark.parametrize("name", ["", "korea", "zip", "rot13", "idna", "undefined", "unicode-escape", "a\0b", "가"])
def test_names_that_are_no_encodings(name: str) -> None:
    with pytest.raises(ConfigError, match="--encoding: expected one that Python knows"):
        check_encoding(name)
