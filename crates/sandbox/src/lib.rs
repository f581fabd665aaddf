//! One machine as a cluster with pod identity: emulators of Azure and Kubernetes, nodes and pods as network
//! namespaces, the real agent and controller.
//!
//! ```text
//! up ─▶ folder, doors ─▶ world::enter ─┬─ supervisor outside: waits, cleans up
//!                                      └─ inside: networks, emulators, controller, agents, kubelet
//! run, identity, env, down, demo ─▶ control socket, loopback doors
//! ```

pub mod args;
mod arm;
mod az;
mod certificates;
pub mod control;
mod detach;
mod down;
mod env;
mod fabric;
mod failure;
pub mod handover;
mod identity;
mod kubelet;
pub mod layout;
mod managed_identity;
mod programs;
mod relay;
mod run;
mod runner;
mod services;
mod spawned;
pub mod state;
mod story;
mod up;
mod world;

pub use args::Sandbox;
