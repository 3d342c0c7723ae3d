"""Reads data/*.csv and data/*.log in the working directory and writes report/summary.md and report/summary.json.

Standard library only; starts no process and opens no connection. Bad lines are counted, not fatal.
"""

import csv
import json
import re
import statistics
import sys
from collections import Counter, defaultdict
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

REQUEST = re.compile(
    r'^(?P<host>\S+) \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+) [^"]*" '
    r'(?P<status>\d{3}) (?P<bytes>\d+|-) (?P<ms>\d+)$'
)


def read_sales(path):
    """Orders of one file: (day, region, product, quantity, price), and how many lines could not be read."""
    orders, bad = [], 0
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            try:
                order = (
                    date.fromisoformat(row["date"]),
                    row["region"].strip(),
                    row["product"].strip(),
                    int(row["quantity"]),
                    Decimal(row["unit_price"]),
                )
            except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation):
                bad += 1
                continue
            if order[3] <= 0 or order[4] < 0:
                bad += 1
                continue
            orders.append(order)
    return orders, bad


def summarise_sales(orders):
    revenue, by_region, by_product, by_day = Decimal(0), defaultdict(Decimal), defaultdict(Decimal), defaultdict(Decimal)
    for day, region, product, quantity, price in orders:
        amount = quantity * price
        revenue += amount
        by_region[region] += amount
        by_product[product] += amount
        by_day[day.isoformat()] += amount
    days = [float(amount) for amount in by_day.values()]
    typical, spread = (statistics.median(days), statistics.pstdev(days)) if days else (0.0, 0.0)
    unusual = sorted(day for day, amount in by_day.items() if spread and abs(float(amount) - typical) > 2 * spread)
    ranked = lambda table: [
        {"name": name, "revenue": str(amount)} for name, amount in sorted(table.items(), key=lambda kv: (-kv[1], kv[0]))
    ]
    return {
        "orders": len(orders),
        "revenue": str(revenue),
        "regions": ranked(by_region),
        "products": ranked(by_product),
        "median_day": f"{typical:.2f}",
        "unusual_days": unusual,
    }


def read_log(path):
    """Requests of one file, and how many lines could not be read."""
    requests, bad = [], 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            match = REQUEST.match(line.rstrip("\n"))
            if match:
                requests.append(match.groupdict())
            elif line.strip():
                bad += 1
    return requests, bad


def percentile(values, share):
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0


def summarise_log(requests):
    times = sorted(int(request["ms"]) for request in requests)
    status = Counter(request["status"][0] + "xx" for request in requests)
    failing = Counter(request["path"] for request in requests if request["status"].startswith("5"))
    return {
        "requests": len(requests),
        "hosts": len({request["host"] for request in requests}),
        "status": dict(sorted(status.items())),
        "p50_ms": percentile(times, 0.50),
        "p95_ms": percentile(times, 0.95),
        "failing_paths": [{"path": path, "errors": count} for path, count in failing.most_common(5)],
    }


def table(rows, columns):
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def as_markdown(report):
    sales, web = report["sales"], report["web"]
    return "\n\n".join(
        [
            "# Report",
            f"{sales['orders']} orders, revenue {sales['revenue']}, median day {sales['median_day']}; "
            f"unusual days: {', '.join(sales['unusual_days']) or 'none'}.",
            table(sales["regions"], ["name", "revenue"]),
            table(sales["products"], ["name", "revenue"]),
            f"{web['requests']} requests from {web['hosts']} hosts; p50 {web['p50_ms']} ms, p95 {web['p95_ms']} ms; "
            + ", ".join(f"{count} × {status}" for status, count in web["status"].items()) + ".",
            table(web["failing_paths"], ["path", "errors"]) if web["failing_paths"] else "No server errors.",
            f"Lines that could not be read: {report['unreadable_lines']}.",
        ]
    ) + "\n"


def main():
    data, out = Path("data"), Path("report")
    orders, requests, unreadable, files = [], [], 0, []
    for path in sorted(data.glob("*.csv")):
        found, bad = read_sales(path)
        orders += found
        unreadable += bad
        files.append(path.name)
    for path in sorted(data.glob("*.log")):
        found, bad = read_log(path)
        requests += found
        unreadable += bad
        files.append(path.name)
    if not files:
        print("nothing to do: no data/*.csv and no data/*.log in the workspace", file=sys.stderr)
        return 1
    report = {
        "files": files,
        "sales": summarise_sales(orders),
        "web": summarise_log(requests),
        "unreadable_lines": unreadable,
    }
    out.mkdir(exist_ok=True)
    (out / "summary.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "summary.md").write_text(as_markdown(report), encoding="utf-8")
    print(f"read {len(files)} files: {len(orders)} orders, {len(requests)} requests, {unreadable} unreadable lines")
    print(f"revenue {report['sales']['revenue']}; best region {(report['sales']['regions'] or [{'name': '-'}])[0]['name']}")
    print("wrote report/summary.md and report/summary.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
