//! Custom resource types, labels and annotations, and their conversion to core.
