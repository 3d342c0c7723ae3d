# Tables: written as CSV, compressed, read into a database, asked, written as JSON, by several processes.
import concurrent.futures
import csv
import gzip
import json
import os
import random
import sqlite3
import subprocess
import tempfile


def sums(part):
    with open("part-%d.json" % part) as file:
        return sum(row[1] for row in json.load(file))


def one(number):
    rows = [(n, random.random(), "name-%d" % (n % 97)) for n in range(50000)]
    with gzip.open("rows.csv.gz", "wt", newline="") as out:
        csv.writer(out).writerows(rows)
    with tempfile.TemporaryDirectory() as folder:
        with sqlite3.connect(os.path.join(folder, "rows.db")) as db:
            db.execute("create table rows (a integer primary key, b real, c text)")
            with gzip.open("rows.csv.gz", "rt", newline="") as file:
                db.executemany("insert into rows values (?, ?, ?)", csv.reader(file))
            db.execute("create index names on rows (c)")
            groups = db.execute("select c, count(*), avg(b) from rows group by c order by c").fetchall()
        db.close()
    assert len(groups) == 97, groups
    for part in range(20):
        with open("part-%d.json" % part, "w") as out:
            json.dump(rows[part * 2500 : part * 2500 + 2500], out)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        total = sum(pool.map(sums, range(20)))
    assert abs(total - sum(row[1] for row in rows)) < 1e-3
    count = subprocess.run("gzip -dc rows.csv.gz | wc -l", shell=True, capture_output=True, text=True, check=True)
    assert int(count.stdout) == 50000
    print("round", number, flush=True)


if __name__ == "__main__":
    number = 0
    while True:
        number += 1
        one(number)
