"""The API as a client in another language sees it, tested through Python's gRPC against the release binary."""
