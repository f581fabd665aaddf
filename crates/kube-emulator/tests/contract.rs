//! What any Kubernetes API server does that podid relies on. Nothing here knows which server it talks to: `world` gives
//! a client and a namespace. Today that is the emulator.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "helpers of tests, where a panic is how a fact fails"
)]

#[path = "contract/apply.rs"]
mod apply;
#[path = "contract/custom.rs"]
mod custom;
#[path = "contract/discovery.rs"]
mod discovery;
#[path = "contract/garbage.rs"]
mod garbage;
#[path = "contract/objects.rs"]
mod objects;
#[path = "contract/pods.rs"]
mod pods;
#[path = "contract/rules.rs"]
mod rules;
#[path = "contract/tables.rs"]
mod tables;
#[path = "contract/tokens.rs"]
mod tokens;
#[path = "contract/watching.rs"]
mod watching;
#[path = "contract/world.rs"]
mod world;
