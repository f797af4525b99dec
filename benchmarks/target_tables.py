"""The cases of docs/accelerators.md, and its tables from their results (`targets.py`)."""

from typing import Any, NamedTuple


class Case(NamedTuple):
    config: str  # with its overrides after it; or `collectives`
    target: str
    fsdp: int = 1
    batch: int = 0  # 0: the config's own

    @property
    def name(self) -> str:
        return f"{self.config}@{self.target}" + f"/fsdp{self.fsdp}" * (self.fsdp > 1)


TILED = [Case(config, "v5e", batch=8) for config in ("demo", "baseline", "cremi:frozen")]
STEPS = [
    *(Case("demo", target, batch=8) for target in ("h200", "rtx4090")),
    *(Case("fib25", target) for target in ("h200", "rtx4090")),
    *(Case(config, "h200") for config in ("fib25:gpu", "fib25:frozen", "cremi:frozen", "cremi:finetuned")),
    *(Case(config, "rtx4090") for config in ("fib25:gpu", "cremi:frozen")),
    *TILED,
]
PREDICTIONS = [Case(config, "h200") for config in ("predict demo", "predict fib25", "predict cremi:frozen")]
PREDICTIONS += [Case("predict demo", target) for target in ("rtx4090", "v5e")]
COLLECTIVES = [Case("collectives", target, fsdp) for target in ("8xh200", "v5e:2x4") for fsdp in (1, 8, 2)]
COLLECTIVES += [Case("collectives", "2x8xh200", 8), Case("collectives", "2xv5e:2x4", 8)]
ATTENTION = [
    Case(f"{what} {size} {kernel}", "h200", batch=8)
    for what, size in (("encode", "tiny"), ("encode", "base_plus"), ("encode", "large"), ("gradients", "tiny"))
    for kernel in ("xla", "cudnn")
]
EVERY = {case.name: case for case in (*STEPS, *PREDICTIONS, *COLLECTIVES, *ATTENTION)}


def with_tables(page: str, rows: dict[str, Any]) -> str:
    """Returns the page with its tables as the results have them."""
    tables = {
        "steps": step_table(rows),
        "tiles": tile_table(rows),
        "predictions": prediction_table(rows),
        "collectives": collective_table(rows),
        "attention": attention_table(rows),
    }
    for name, lines in tables.items():
        before, rest = page.split(f"<!-- {name}: benchmarks/targets.py -->\n")
        _, after = rest.split("<!-- end -->", 1)
        page = "\n".join(
            (
                f"{before}<!-- {name}: benchmarks/targets.py -->",
                "",
                *(lines if len(lines) > 2 else ["No case was compiled yet."]),
                "",
                f"<!-- end -->{after}",
            )
        )
    return page


def step_table(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| config | device | batch | GiB | TFLOP | GB moved | kernels | transposes | copies | at least | "
        "patches/s at most |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in STEPS:
        if row := rows.get(case.name):
            start = f"| `{case.config}` | {case.target} | "
            if not row["fits"]:
                lines.append(f"{start}{row.get('batch', '-')} | does not fit | | | | | | | |")
                continue
            lines.append(
                f"{start}{row['batch']} | {row['bytes'] / 2**30:.2f} | {row['flops'] / 1e12:.3g} | "
                f"{row['moved'] / 1e9:.3g} | {row['kernels']} | {row['transposes'][0]} | {row['copies'][0]} | "
                f"{1e3 * row['seconds']:.3g} ms, {row['by']} | {row['batch'] / row['seconds']:.3g} |"
            )
    return lines


def tile_table(rows: dict[str, Any]) -> list[str]:
    """Of each layer that moves at least a hundredth, GB and the share of them that are values."""
    cases = [case for case in TILED if rows.get(case.name, {}).get("fits")]
    lines = [f"| layer | {' | '.join(f'`{case.config}`' for case in cases)} |", f"|{'---|' * (1 + len(cases))}"]
    cells: dict[str, dict[str, str]] = {}
    for case in cases:
        row = rows[case.name]
        for layer, (moved, useful) in {"**all**": (row["moved"], row["useful"]), **row["layers"]}.items():
            if moved > row["moved"] / 100:
                cells.setdefault(layer or "others", {})[case.name] = f"{moved / 1e9:.2f}, {useful / moved:.0%}"
    for layer, of in cells.items():
        lines.append(f"| {layer} | {' | '.join(of.get(case.name, '') for case in cases)} |")
    seconds = (f"{rows[case.name]['compiling_s'] / 60:.1f}" for case in cases)
    return [*lines, f"| minutes of a core to compile | {' | '.join(seconds)} |"]


def prediction_table(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| config | device | windows at once | GiB | decoder: kernels, transposes, copies | a window at least | "
        "Mvoxel/s at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in PREDICTIONS:
        if row := rows.get(case.name):
            start = f"| `{case.config.removeprefix('predict ')}` | {case.target} | "
            if not row["fits"]:
                lines.append(f"{start}1 | does not fit | | | |")
                continue
            decoder, (z, y, x) = row["programs"]["decode"], row["shape"]
            lines.append(
                f"{start}{row['at_once']} | {row['bytes'] / 2**30:.2f} | {decoder['kernels']}, "
                f"{decoder['transposes'][0]}, {decoder['copies'][0]} | "
                f"{1e3 * row['seconds'] / row['windows']:.3g} ms | {z * y * x / row['seconds'] / 1e6:.3g} |"
            )
    return lines


def collective_table(rows: dict[str, Any]) -> list[str]:
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute")
    lines = [f"| devices | data x fsdp | {' | '.join(kinds)} | MB sent by each |", f"|{'---|' * (3 + len(kinds))}"]
    for case in COLLECTIVES:
        if row := rows.get(case.name):
            found = [row["collectives"].get(kind, [0, 0]) for kind in kinds]
            cells = (f"{number} of {size / 1e6:.2f} MB" if number else "none" for number, size in found)
            data, fsdp = row["mesh"]
            lines.append(f"| {case.target} | {data} x {fsdp} | {' | '.join(cells)} | {row['sent'] / 1e6:.2f} |")
    return lines


def attention_table(rows: dict[str, Any]) -> list[str]:
    lines = [
        "| | attention | kernels | fused attentions | products | transposes | GB moved | GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in ATTENTION:
        if row := rows.get(case.name):
            what, size, kernel = case.config.split()
            number, size_of = row["transposes"]
            lines.append(
                f"| {what}, {size} | {kernel} | {row['kernels']} | {row['fused']} | {row['products']} | "
                f"{number} of {size_of / 1e6:.0f} MB | {row['moved'] / 1e9:.2f} | {row['bytes'] / 2**30:.2f} |"
            )
    return lines
