"""The channel as a gRPC service: servers, workers, settings, telemetry."""
