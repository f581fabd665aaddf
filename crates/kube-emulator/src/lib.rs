//! The part of the Kubernetes API that podid and kubectl use, in one process and in memory: the embedded default, never
//! the only truth. It schedules nothing and runs nothing.

mod answer;
mod app;
mod apply;
mod args;
mod authority;
mod cel;
mod cluster;
mod crd;
mod decode;
mod discovery;
mod fields;
mod json;
mod jsonpath;
mod kinds;
mod kubeconfig;
mod list;
mod logs;
mod patch;
mod protobuf;
mod remove;
mod request;
mod resource;
mod reviews;
mod schema;
mod selector;
mod server;
mod settle;
mod shape;
mod status;
mod store;
mod strategic;
mod subresource;
mod table;
mod token;
mod typed;
mod user;
mod watch;
mod write;

pub use app::{App, Config, Emulator, EmulatorError, Logs};
pub use args::EmulatorArgs;
pub use authority::{Authority, AuthorityError, Identity};
pub use logs::{LogAnswer, LogError, LogFolder, LogQuery, LogStream, PodLogs};
pub use token::KeyError;
