#!/usr/bin/env bash
#
# Checks that every C file is laid out as .clang-format says: check_format.sh [--root DIR] [--fix]
#
# Another version of clang-format lays some lines out differently, so only version 14, the one of
# Debian 12, may judge. Without it the check is skipped: exit status 77.

set -euo pipefail

root=$(dirname "${BASH_SOURCE[0]}")/..
mode=(--dry-run -Werror)
while [ $# -gt 0 ]; do
    case $1 in
        --root)
            root=${2:?--root needs a directory}
            shift
            ;;
        --fix) mode=(-i) ;;
        *)
            echo "usage: scripts/check_format.sh [--root DIR] [--fix]" >&2
            exit 2
            ;;
    esac
    shift
done
cd "$root"

formatter=
for candidate in clang-format-14 clang-format; do
    if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q ' version 14\.'; then
        formatter=$candidate
        break
    fi
done
if [ -z "$formatter" ]; then
    echo "check_format: skipped: no clang-format 14 here; 'scripts/install-deps --dev' installs it"
    exit 77
fi

# One message about a bad style file, not one for each C file.
"$formatter" --style=file --dump-config >/dev/null

# Build trees hold generated files; they are known by their cache.
mapfile -d '' files < <(
    find . \( -path './.*' -o -name build -o -type d -execdir test -f '{}/CMakeCache.txt' \; \) \
        -not -path . -prune -o -type f \( -name '*.c' -o -name '*.h' \) -print0 | sort -z
)
if [ ${#files[@]} -eq 0 ]; then
    echo "check_format: no C files below $PWD" >&2
    exit 1
fi
# From inside the tree the places read as in the other gates: folder/file:line.
"$formatter" --style=file "${mode[@]}" "${files[@]#./}"
echo "check_format: ${#files[@]} files: nothing wrong"
