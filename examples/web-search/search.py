"""A search over corpus.json: arguments come as JSON on standard input, the result goes as JSON to standard output."""

import json
import re
import sys
from math import log
from pathlib import Path


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


def search(corpus, query, limit):
    """The best documents for the query: the more rare words of it they have, the better."""
    bags = [set(words(document["title"] + " " + document["text"])) for document in corpus]
    wanted = set(words(query))
    weight = {word: log((1 + len(bags)) / (1 + sum(word in bag for bag in bags))) + 1 for word in wanted}
    scored = [
        (sum(weight[word] for word in wanted & bag), document) for bag, document in zip(bags, corpus)
    ]
    best = sorted((pair for pair in scored if pair[0] > 0), key=lambda pair: -pair[0])[:limit]
    return [
        {"title": document["title"], "url": document["url"], "snippet": document["text"][:200], "score": round(score, 3)}
        for score, document in best
    ]


def main():
    arguments = json.load(sys.stdin)
    limit = max(1, min(int(arguments.get("limit", 5)), 50))
    corpus = json.loads(Path(__file__).with_name("corpus.json").read_text(encoding="utf-8"))
    json.dump({"items": search(corpus, arguments["query"], limit)}, sys.stdout)


if __name__ == "__main__":
    main()
