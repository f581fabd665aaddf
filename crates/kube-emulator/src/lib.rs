//! The part of the Kubernetes API that podid and kubectl use, in one process and in memory: the embedded default, never
//! the only truth. It schedules nothing and runs nothing.

mod apply;
mod cel;
mod cluster;
mod crd;
mod decode;
mod fields;
mod json;
mod jsonpath;
mod kinds;
mod patch;
mod remove;
mod resource;
mod schema;
mod selector;
mod settle;
mod shape;
mod status;
mod store;
mod strategic;
mod typed;
mod write;
