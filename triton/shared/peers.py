"""Other servers: their addresses, and channels to them that stay warm."""

import contextlib
import ctypes
import json
import os

import credentials
import grpc
import grpc.experimental

_METHOD = "/inference.GRPCInferenceService/ModelInfer"
# Numbers of mallopt's parameters in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # One TCP connection per proxy, even where two proxies of a process call the same peer.
    ("grpc.use_local_subchannel_pool", 1),
    # A connection stays open, however long no request comes.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    # A peer that restarts is tried again quickly, not after the default of up to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A peer whose machine or network is gone is noticed without a request; the flags of the servers
    # allow pings so often (others answer too many of them with GOAWAY). One that is only stopped
    # answers pings, or its kernel does: there the deadline of a call helps, and nothing else.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Retries are a decision of the data plane, not of the channel.
    ("grpc.enable_retries", 0),
    # The calling thread sends and receives; unlike a plain blocking call it can be cancelled.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
]


def keep_freed_memory():
    """Let glibc keep the memory of sent messages for the next ones.

    By default large blocks go back to the system when they are freed and are faulted in anew, page
    by page, for the next message: a third of the time of a hop with 10 MB.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def peers_of_environment():
    """{server: "host:port"} of TRITIER_PEERS, which holds JSON or the path of a file with it."""
    text = os.environ.get("TRITIER_PEERS", "").strip()
    if text and not text.startswith("{"):
        with open(text, encoding="utf-8") as file:
            text = file.read()
    return read_peers(text, "TRITIER_PEERS") if text.strip() else {}


def read_peers(text, source):
    """{server: "host:port"} of JSON; ValueError, which names `source`, for anything else."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{source}: not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(url, str) for url in found.values()):
        raise ValueError(f'{source}: allowed is a JSON object {{"server": "host:port"}}')
    return found


def url_of(server, configured, known):
    """Address of a server: the environment's, else the configured one; ValueError without any."""
    url = known.get(server, configured)
    if not url:
        raise ValueError(
            f"no address of server '{server}': give it a url in servers.yaml and deploy again, "
            f"or set TRITIER_PEERS, which names {sorted(known) or 'no server'}"
        )
    return url


def open_channel(url, on_state=None):
    """Channel to `url`, connecting already, and its ModelInfer call on serialized messages.

    On the network a call with one answer and a call with a stream of one are the same. `on_state`
    is called, in another thread, with each grpc.ChannelConnectivity that the channel comes to.
    """
    channel = credentials.open_channel(url, _CHANNEL_OPTIONS)
    channel.subscribe(on_state or (lambda _: None), try_to_connect=True)
    return channel, channel.unary_stream(_METHOD)


def drain(call):
    """Read a call to its end, so that gRPC can forget it; what happened is known already."""
    with contextlib.suppress(grpc.RpcError):
        for _ in call:
            pass
