//! What every podid process does alike: logging, metrics, readiness, signals, named tasks, watches.
