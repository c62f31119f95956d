"""Gives what a container sends to its peers the bandwidth and the delay of measured links, by `tc`.

    python3 links.py FILE

FILE is JSON, [{"peer": host name, "bandwidth_mib_s": number or null, "delay_ms": number}]. It runs
in the network of the container that sends, with the capability NET_ADMIN, and looks every few
seconds whether the addresses of the peers have changed. Nothing else is shaped.
"""

import json
import socket
import subprocess
import sys
import time

_DEVICE = "eth0"
_POLL_S = 5.0
# More than any link here: bits per second of a class without a limit, and packets under way.
_UNLIMITED_BIT = 10_000_000_000
_PACKETS = 100_000


def main(path):
    """Runs until it is stopped."""
    with open(path, encoding="utf-8") as file:
        rows = json.load(file)
    known = None
    while True:
        addresses = {row["peer"]: _addresses(row["peer"]) for row in rows}
        if addresses != known:
            for command in commands(rows, addresses):
                # There may be nothing to remove.
                subprocess.run(command, check="del" not in command)
            known = addresses
            sys.stdout.write(f"links: {addresses}\n")
            sys.stdout.flush()
        time.sleep(_POLL_S)


def commands(rows, addresses, device=_DEVICE):
    """The command lines of tc, for peers at these addresses (peer -> list of IPv4 addresses)."""
    found = [
        ["tc", "qdisc", "del", "dev", device, "root"],
        ["tc", "qdisc", "add", "dev", device, "root", "handle", "1:", "htb", "default", "1"],
        _class(device, 1, None),
    ]
    for number, row in enumerate(rows, start=16):
        found.append(_class(device, number, row["bandwidth_mib_s"]))
        if row["delay_ms"]:
            found.append(
                ["tc", "qdisc", "add", "dev", device, "parent", f"1:{number:x}", "handle",
                 f"{number:x}:", "netem", "delay", f"{row['delay_ms']:g}ms", "limit",
                 str(_PACKETS)]
            )  # fmt: skip
        for address in addresses[row["peer"]]:
            found.append(
                ["tc", "filter", "add", "dev", device, "parent", "1:", "protocol", "ip", "prio",
                 "1", "u32", "match", "ip", "dst", f"{address}/32", "flowid", f"1:{number:x}"]
            )  # fmt: skip
    return found


def _class(device, number, bandwidth_mib_s):
    limited = bandwidth_mib_s is not None
    bit = int(bandwidth_mib_s * 2**20 * 8) if limited else _UNLIMITED_BIT
    return ["tc", "class", "add", "dev", device, "parent", "1:", "classid", f"1:{number:x}", "htb",
            "rate", f"{bit}bit", "burst", "64kb", "quantum", "60000"]  # fmt: skip


def _addresses(peer):
    try:
        rows = socket.getaddrinfo(peer, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:  # it is not there yet
        return []
    return sorted({row[4][0] for row in rows})


if __name__ == "__main__":
    main(sys.argv[1])
