#!/usr/bin/env python3
"""Counts what viewers of one room receive, by other means than the swarm: Python, asyncio and `websockets`.

    count.py ws://127.0.0.1:8080/ws swarm-0 --viewers 30 --lines 100

Prints `ready` once all viewers have joined, then waits until each has received so many lines (or until the time is up), and prints one
line of JSON: lines and bytes received in all, and for the numbers each viewer saw how many were missing, repeated or out of order.
"""

import argparse
import asyncio
import json

import websockets


async def viewer(url, room, lines, ready, found):
    async with websockets.connect(f"{url}?room={room}", compression=None) as socket:
        last = None
        received = 0
        while received < lines:
            frame = await socket.recv()
            message = json.loads(frame)
            if message["type"] == "joined":
                last = message["seq"]
                ready.release()
            elif message["type"] == "danmaku":
                received += 1
                found["lines"] += 1
                found["bytes"] += len(frame.encode())
                if message["seq"] > last + 1:
                    found["missing"] += message["seq"] - last - 1
                elif message["seq"] <= last:
                    found["again"] += 1
                last = max(last, message["seq"])


async def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("room")
    parser.add_argument("--viewers", type=int, default=30)
    parser.add_argument("--lines", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30)
    asked = parser.parse_args()
    found = {"viewers": asked.viewers, "lines": 0, "bytes": 0, "missing": 0, "again": 0}
    ready = asyncio.Semaphore(0)
    viewers = [asyncio.create_task(viewer(asked.url, asked.room, asked.lines, ready, found)) for _ in range(asked.viewers)]
    for _ in viewers:
        await ready.acquire()
    print("ready", flush=True)
    await asyncio.wait(viewers, timeout=asked.seconds)
    for one in viewers:
        if one.done():
            one.result()
        else:
            one.cancel()
    print(json.dumps(found), flush=True)


asyncio.run(main())
