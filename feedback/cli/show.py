"""`show` and `explain`: a table like `ipvsadm -Ln` with the master's figures, and the reasons for one weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from feedback.cli.asking import ask, control_option, json_option
from feedback.cli.errors import Failure

FORWARD = {"route": "Route", "masquerade": "Masq", "tunnel": "Tunnel", "local": "Local", "bypass": "Bypass"}


def kernel_status(netns: str | None) -> dict[str, Any]:
    """Status from the kernel alone. Raises Failure."""
    from feedback.ipvs import Client, IpvsError
    from feedback.master.shell.status import of_snapshot

    try:
        with Client(netns=netns) as client:
            return of_snapshot(client.snapshot())
    except IpvsError as error:
        raise Failure(str(error)) from None


@click.command()
@control_option
@click.option("--kernel", is_flag=True, help="Ask the kernel instead of the master: no load, no targets.")
@click.option("--netns", default=None, help="With --kernel: in this network namespace.")
@json_option
def show(control: Path, kernel: bool, netns: str | None, as_json: bool) -> None:
    """Show services and destinations like `ipvsadm -Ln`, with base weight, target, load, age and state.

    \b
    Base    the static weight          Target  share of the service's connections
    Load    used part of its capacity  Cap     connections per second it can complete
    Age     since the last report      State   fresh, stale, lost, never, quiesced, barred, removed; [orders]
    """
    answer = kernel_status(netns) if kernel else ask(control, "status")
    click.echo(json.dumps(answer) if as_json else "\n".join(table(answer)))


def table(answer: dict[str, Any]) -> list[str]:
    """Lines of text for a status."""
    lines = [
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn"
        + ("    Base  Target  Load    Cap/s    Age State" if answer["source"] == "master" else ""),
    ]
    for service in answer["services"]:
        lines.append(_service_line(service))
        lines += [_destination_line(d) for d in service["destinations"]]
    return lines


def _service_line(service: dict[str, Any]) -> str:
    kind, _, rest = str(service["virtual"]).partition(":")
    text = f"FWM  {rest}" if kind == "fwmark" else f"{kind.upper():<4} {rest}"
    persistent = f" persistent {service['persistence_seconds']}" if service["persistence_seconds"] else ""
    held = f"  [{service['held']}]" if service.get("held") else ""
    return f"{text} {service['scheduler']}{persistent}{held}"


def _destination_line(d: dict[str, Any]) -> str:
    weight = "-" if d["weight"] is None else d["weight"]
    line = f"  -> {d['address']:<28} {FORWARD[d['forward']]:<7} {weight:<6} {d['active']:<10} {d['inactive']:<10}"
    if "state" not in d:
        return line.rstrip()
    load = "-" if d["utilisation"] is None else f"{100 * d['utilisation']:.0f}%"
    capacity = "-" if d["capacity_per_second"] is None else f"{d['capacity_per_second']:.1f}"
    age = "-" if d["age_seconds"] is None else f"{d['age_seconds']:.1f}s"
    return f"{line} {d['base_weight']:>6} {100 * d['share']:>6.1f}% {load:>5} {capacity:>8} {age:>6} {_state(d)}"


def _state(d: dict[str, Any]) -> str:
    order = d.get("order")
    return f"{d['state']} [{order['text']}]" if order else str(d["state"])


@click.command()
@click.argument("destination")
@control_option
@json_option
def explain(destination: str, control: Path, as_json: bool) -> None:
    """Explain why DESTINATION (ADDRESS or ADDRESS:PORT) has its weight: each stage with the value after it."""
    answer = ask(control, "status")
    found = [
        {"virtual": s["virtual"], "scheduler": s["scheduler"], "law": s["law"], **d}
        for s in answer["services"]
        for d in s["destinations"]
        if destination in (d["address"], d["address"].rpartition(":")[0].strip("[]"))
    ]
    if not found:
        known = ", ".join(d["address"] for s in answer["services"] for d in s["destinations"])
        raise Failure(f"{destination}: no such destination; known: {known or 'none'}")
    click.echo(json.dumps({"schema": answer["schema"], "destinations": found}) if as_json else chains(found))


def chains(found: list[dict[str, Any]]) -> str:
    blocks = []
    for d in found:
        lines = [f"{d['address']} in {d['virtual']} ({d['scheduler']}, law {d['law']}): weight {d['weight']}"]
        lines += _checked(d.get("check"))
        lines += _source(d)
        lines += [f"  {r['stage']:<8} {_value(r['value']):>10}  {r['text']}" for r in d["reasons"]]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _source(d: dict[str, Any]) -> list[str]:
    """Where what is known of it comes from, and why its exporter says nothing."""
    age = "" if d.get("age_seconds") is None else f", {d['age_seconds']:.1f} s old"
    lines = [f"  {'source':<8} {'':>10}  {d['source']}{age}"] if d.get("source") else []
    return lines + ([f"  {'exporter':<8} {'':>10}  {d['unread']}"] if d.get("unread") else [])


def _checked(check: dict[str, Any] | None) -> list[str]:
    """Its health check's verdict and warning."""
    if not check:
        return []
    stands = {True: "up", False: "down", None: ""}[check["up"]]
    lines = [f"  {'check':<8} {stands:>10}  {check['text']}"]
    return lines + ([f"  {'':<8} {'':>10}  {check['warning']}"] if check.get("warning") else [])


def _value(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
