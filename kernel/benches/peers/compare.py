#!/usr/bin/env python3
"""Runs this project's benchmark and the peers by turns on this machine and prints a markdown table. Run it with the
Python that the peers are installed for."""

import argparse
import datetime
import json
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import common

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
BENCH = "cargo bench -p a2ats-kernel --bench roofline -- --only dense_decode,decode_step_a2ats,decode_step_dense"
SCRIPTS = {
    "pytorch": ["pytorch.py"],
    "llama.cpp": ["ggml.py", "--peer", "llama.cpp"],
    "ik_llama.cpp": ["ggml.py", "--peer", "ik_llama.cpp"],
}
OURS = {"decode_step_a2ats": "a2ats step", "decode_step_dense": "dense step"}


def arguments():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--peers", nargs="*", choices=SCRIPTS, default=list(SCRIPTS), help="which peers to run")
    options.add_argument(
        "--args", action="append", default=[], metavar="PEER=ARGUMENTS",
        help='arguments of a peer\'s script, such as "pytorch=--repeat-kv" or "llama.cpp=--library FOLDER"',
    )  # fmt: skip
    options.add_argument("--ours", metavar="FILE", help="read our figures from this JSON, do not run our benchmark")
    options.add_argument("--threads", type=int, default=common.available_threads(), help="threads to use")
    options.add_argument("--tokens", type=common.context, nargs="+", default=common.CONTEXTS, help="context lengths")
    options.add_argument("--rounds", type=int, default=3, help="rounds of all peers; ours runs around each of them")
    options.add_argument("--quick", action="store_true", help="fewer samples of everything, to try it out")
    options.add_argument("--json", metavar="FILE", help="write all measurements to this file, as lines of JSON")
    return options.parse_args()


def run_ours(options):
    """One run of our benchmark: the machine's figures and measurements in the form that peers print."""
    if options.ours:
        return read_ours(json.loads(Path(options.ours).read_text()), options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ours.json"
        command = [*shlex.split(BENCH), "--threads", str(options.threads), "--json", str(file)]
        command += ["--quick"] if options.quick else []
        print(f"$ {shlex.join(command)}", file=sys.stderr)
        subprocess.run(command, cwd=REPOSITORY, stdout=sys.stderr, check=True)
        return read_ours(json.loads(file.read_text()), options)


def read_ours(run, options):
    machine = run["machine"]
    if machine["threads"] != options.threads:
        sys.exit(f"our figures are of {machine['threads']} threads; say --threads {machine['threads']}")
    lines = []
    for result in run["results"]:
        shape = result["shape"]
        model = (shape.get("kv_heads"), shape.get("group"), shape.get("head_dim"))
        if (
            result["operation"] in OURS
            and result["threads"] == options.threads
            and model == (common.KV_HEADS, common.GROUP, common.HEAD_DIM)
        ):
            lines.append({
                "peer": "ours", "version": our_version(), "kv": shape["dtype"], "tokens": shape["tokens"],
                "expression": f"{result['operation']}, {result['backend']}", "operation": result["operation"],
                "threads": result["threads"], "seconds": result["seconds"], "median_seconds": result["median_seconds"],
            })  # fmt: skip
    return machine, lines


def our_version():
    manifest = (REPOSITORY / "Cargo.toml").read_text().splitlines()
    version = next((line.split('"')[1] for line in manifest if line.startswith('version = "')), "")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True
    ).stdout.strip()
    return f"a2ats-kernel {version} {commit}".strip()


def run_peer(peer, options):
    """What a peer's script printed, line by line; none if it is not installed."""
    command = [sys.executable, str(HERE / SCRIPTS[peer][0]), *SCRIPTS[peer][1:], "--threads", str(options.threads)]
    command += ["--tokens", *map(str, options.tokens)]
    command += ["--seconds", "0.25", "--samples", "5"] if options.quick else []
    for argument in options.args:
        name, _, value = argument.partition("=")
        command += shlex.split(value) if name == peer else []
    print(f"$ {shlex.join(command)}", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(f"{peer} ended with {done.returncode}; what it measured before is kept", file=sys.stderr)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def best(lines):
    """The fastest expression: its best time of all rounds, and the median of its rounds' medians."""
    by_expression = {}
    for line in lines:
        by_expression.setdefault(line["expression"], []).append(line)
    rounds = min(by_expression.values(), key=lambda rounds: min(line["seconds"] for line in rounds))
    fastest = min(rounds, key=lambda line: line["seconds"])
    return {**fastest, "median_seconds": statistics.median(line["median_seconds"] for line in rounds)}


def table(machine, lines, tokens):
    """Rows: ours, then peers by KV type, the fastest at the longest context first. Columns: contexts."""
    ours, peers = {}, {}
    for line in lines:
        key = line["operation"] if line["peer"] == "ours" else (line["peer"], line["kv"])
        (ours if line["peer"] == "ours" else peers).setdefault(key, {}).setdefault(line["tokens"], []).append(line)
    ours, peers = (
        {key: {tokens: best(lines) for tokens, lines in row.items()} for key, row in rows.items()}
        for rows in (ours, peers)
    )

    def cell(row, tokens, multiples):
        if tokens not in row:
            return "–"
        seconds = row[tokens]["seconds"]
        text = f"{seconds * 1e3:.3g} ms (median {row[tokens]['median_seconds'] * 1e3:.3g})"
        for operation in ("decode_step_dense", "decode_step_a2ats") if multiples else ():
            base = ours.get(operation, {}).get(tokens)
            text += f"; {seconds / base['seconds']:.3g}×" if base else "; –"
        return text

    floor = [2 * common.KV_HEADS * common.HEAD_DIM * 2 * count / machine["read_bandwidth_all"] for count in tokens]
    rows = [["", *(f"{count >> 10}K" for count in tokens)], ["---"] * (1 + len(tokens))]
    rows.append(["reading a bf16 KV cache once", *(f"{seconds * 1e3:.3g} ms" for seconds in floor)])
    for operation, name in OURS.items():
        row = ours.get(operation, {})
        rows.append([f"**{name}**, bf16 KV", *(cell(row, count, False) for count in tokens)])
    longest = max(tokens)

    def slowness(item):
        return item[1][longest]["seconds"] if longest in item[1] else float("inf")

    for (peer, kv), row in sorted(peers.items(), key=slowness):
        rows.append([f"{peer}, {kv} KV", *(cell(row, count, True) for count in tokens)])
    text = ["| " + " | ".join(row) + " |" for row in rows]
    text += ["", "Best time of all rounds (median); multiples: of our dense step; of our a2ats step."]
    text += ["The fastest expressions:", ""]
    for row in [*(ours[key] for key in OURS if key in ours), *(peers[key] for key in sorted(peers))]:
        contexts = {}
        for count in tokens:
            if count in row:
                contexts.setdefault(row[count]["expression"], []).append(f"{count >> 10}K")
        found = "; ".join(f"{expression} ({', '.join(where)})" for expression, where in contexts.items())
        line = next(iter(row.values()))
        text.append(f"- {line['peer']}, {line['kv']} KV: {found}")
    return "\n".join(text)


def main():
    options = arguments()
    lines, machine = [], None
    for turn in range(options.rounds + 1):
        if machine is None or not options.ours:
            found, measured = run_ours(options)
            lines += [{**line, "round": turn} for line in measured]
            if machine is None or found["read_bandwidth_all"] > machine["read_bandwidth_all"]:
                machine = found
        if turn < options.rounds:
            for peer in options.peers:
                lines += [{**line, "round": turn} for line in run_peer(peer, options)]
    if options.json:
        Path(options.json).write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = {line["version"] if line["peer"] == "ours" else f"{line['peer']} {line['version']}" for line in lines}
    system = f"{platform.system()} {platform.machine()}"
    print(f"{datetime.date.today()}, {machine['cpu']}, {options.threads} threads, {system}")
    print(f"read bandwidth {machine['read_bandwidth_all'] / 1e9:.3g} GB/s, rounds: {options.rounds}")
    print("; ".join(sorted(names)), end="\n\n")
    print(table(machine, lines, options.tokens))


if __name__ == "__main__":
    main()
