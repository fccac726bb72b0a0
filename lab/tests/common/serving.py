"""A gRPC server that says how it fares, as gRPC's health checking protocol has it, beside one that does not know that protocol.

What is served is in a file: a line NAME=STATUS each, by the number of the status; the server as a whole has no name.
"""

import sys
import time
from concurrent import futures

import grpc

SERVED, KNOWING, IGNORANT = sys.argv[1:]


def check(request, context):
    # A message of one text, which is the first field: its tag and its length, or nothing at all.
    name = request[2:].decode()
    with open(SERVED) as lines:
        served = dict(line.strip().split("=") for line in lines)
    if name not in served:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return bytes([8, int(served[name])])


def serve(at, handlers):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=handlers)
    server.add_insecure_port(at)
    server.start()
    return server


health = {"Check": grpc.unary_unary_rpc_method_handler(check)}
running = [
    serve(KNOWING, [grpc.method_handlers_generic_handler("grpc.health.v1.Health", health)]),
    serve(IGNORANT, []),
]
while True:
    time.sleep(3600)
