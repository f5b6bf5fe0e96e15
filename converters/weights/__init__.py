"""Large weights, kept outside of protobuf: references to arrays, mapped files, files beside a model."""
