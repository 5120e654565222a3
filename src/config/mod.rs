//! `config.yaml`, environment and flags as one `Settings`, each value with its origin.
