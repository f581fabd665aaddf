//! How long a request waits for the watch event that would change its answer, and what is remembered of waits that
//! ran out: the same question is then refused at once until something changed that could matter to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use podid_core::identity::ObjectName;
use podid_core::reason::Waits;
use podid_core::{Pod, Selector, World};

/// Most waits that are remembered; beyond it all are forgotten, which costs a wait and no more.
const MAX_REMEMBERED: usize = 4096;

/// Waits that ran out.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    state: RandomState,
    /// What was asked, and the version of what was looked at.
    in_vain: Mutex<HashMap<Asked, u64>>,
}

/// Who asked for what. The question is a hash: a collision costs somebody a wait, not a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asked {
    who: Who,
    what: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    Pod(Arc<str>),
    Named(ObjectName),
    Address(IpAddr),
}

impl Patience {
    /// A question of `pod`, for the pod that is `named`, or of somebody at `address` who is nobody's pod yet.
    pub(crate) fn asked(
        &self,
        pod: Option<&Arc<Pod>>,
        named: Option<&ObjectName>,
        address: IpAddr,
        selector: Option<&Selector<'_>>,
    ) -> Asked {
        let mut hasher = self.state.build_hasher();
        pod.and_then(|pod| pod.selector()).hash(&mut hasher);
        match selector {
            None => 0_u8.hash(&mut hasher),
            Some(Selector::ClientId(id)) => (1_u8, id).hash(&mut hasher),
            Some(Selector::ObjectId(id)) => (2_u8, id).hash(&mut hasher),
            Some(Selector::ResourceId(id)) => {
                3_u8.hash(&mut hasher);
                id.bytes()
                    .for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
            }
            // None of them is ever anybody's.
            Some(Selector::Malformed(_)) => 4_u8.hash(&mut hasher),
        }
        Asked {
            who: match (pod, named) {
                (Some(pod), _) => Who::Pod(Arc::clone(&pod.id.uid)),
                (None, Some(object)) => Who::Named(object.clone()),
                (None, None) => Who::Address(address),
            },
            what: hasher.finish(),
        }
    }

    /// Whether a wait for this has run out and nothing has changed since.
    pub(crate) fn is_in_vain(&self, asked: &Asked, version: u64) -> bool {
        self.in_vain.lock().get(asked) == Some(&version)
    }

    /// A wait for this ran out.
    pub(crate) fn ran_out(&self, asked: Asked, version: u64) {
        let mut in_vain = self.in_vain.lock();
        if in_vain.len() >= MAX_REMEMBERED {
            in_vain.clear();
        }
        in_vain.insert(asked, version);
    }
}

/// The version of what an event must change for `waits` to end; none when nothing would help.
pub(crate) fn version_for(waits: Waits, world: &World, pod: Option<&Arc<Pod>>) -> Option<u64> {
    match (waits, pod) {
        (Waits::Never, _) => None,
        (Waits::ForNamespace, Some(pod)) => Some(world.version_of(pod.namespace())),
        (Waits::ForPod | Waits::ForNamespace, _) => Some(world.pods_version()),
    }
}
