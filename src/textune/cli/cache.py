"""`textune cache`."""

from __future__ import annotations

import click


@click.command()
@click.option("--clear", is_flag=True, help="Remove it; rows that a running textune uses stay.")
def cache(clear: bool) -> None:
    """Show what textune keeps on this disk, or remove it.

    Converted data, token ids and the measured arithmetic are kept so that a second run begins at once; what is missing
    is made again. The folder is that of the environment variable TEXTUNE_CACHE, else textune in that of XDG_CACHE_HOME,
    else ~/.cache/textune.
    """
    from textune.data.cache import CACHED, cache_root, clear_cache, num_bytes
    from textune.files import mebibytes

    if clear:
        clear_cache()
    click.echo(cache_root("").as_posix())
    for subfolder, meaning in CACHED.items():
        click.echo(f"  {meaning:<22}{mebibytes(num_bytes(cache_root(subfolder))):>12}")
