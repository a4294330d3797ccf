#!/usr/bin/env python3
"""Checks that every package that tickring is built from may be used in it.

usage: cargo metadata --format-version 1 --all-features | licences.py

A licence expression is fine if one of its alternatives consists of allowed licences only.
"""
import json
import re
import sys

ALLOWED = {
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0",
    "CC0-1.0", "CDLA-Permissive-2.0", "ISC", "MIT", "MIT-0", "MPL-2.0", "Unicode-3.0", "Unlicense", "Zlib",
}


def allowed(expression):
    """Whether an SPDX expression (of OR, AND, / and parentheses) can be met by ALLOWED."""
    text = expression.replace("/", " OR ")
    names = sorted(set(re.findall(r"[\w.+-]+(?: WITH [\w.-]+)?", text)) - {"OR", "AND"}, key=len, reverse=True)
    names = [name for name in names if name not in ("OR", "AND")]
    for name in names:
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-]| WITH)", str(name in ALLOWED), text)
    text = text.replace("OR", "or").replace("AND", "and")
    return bool(re.fullmatch(r"[\s()]*(?:(?:True|False|or|and)[\s()]*)+", text)) and eval(text)


def main():
    packages = json.load(sys.stdin)["packages"]
    refused = [
        f"{p['name']} {p['version']}: {p['license']}"
        for p in packages
        if not (p["license"] and allowed(p["license"])) and not p.get("license_file")
    ]
    print(f"{len(packages)} packages, {len(refused)} with a licence that is not allowed")
    print("\n".join(refused))
    sys.exit(bool(refused))


main()
