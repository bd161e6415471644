"""The Open Inference Protocol over gRPC; imported only if `INFERENCE_GRPC_PORT` is set.

`open_inference.proto` is the protocol's own. `make messages` generates the modules in `messages`.
"""
