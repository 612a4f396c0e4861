"""`textune doctor`."""

from __future__ import annotations

import click

from textune.cli.output import print_json


@click.command()
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 or mps.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor(device: str, as_json: bool) -> None:
    """Print versions, cores and the measured rate of matrix products in each arithmetic."""

    from textune.environment import describe, find_device, set_threads
    from textune.training.precision import choose

    found = find_device(device)
    set_threads()
    arithmetic = choose("auto", found, anew=True)
    facts = describe(found, arithmetic)
    del facts["command"]
    if as_json:
        print_json(facts)
        return
    for name in ("textune", "python", "platform", "processor", "cores", "threads", "device"):
        click.echo(f"{name:<14}{facts[name]}")
    for name, version in facts["packages"].items():
        click.echo(f"{name:<14}{version}")
    click.echo("\nmatrix products, measured now:")
    for item in arithmetic.measurements:
        click.echo(f"  {item.name:<12}{item.gflops:10,.0f} GFLOP/s   relative error {item.relative_error:.1e}")
    click.echo(f"\n--precision auto takes {arithmetic.reason}")
