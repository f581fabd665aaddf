//! What the profile wants: objects and, for entries that cannot be had, why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use podid_api::names::{
    ADDON_EXCEPTION, ADDON_LABEL, ADDON_LABEL_VALUE, ADDON_NAMESPACE, OBJECT_ID_ANNOTATION,
};
use podid_api::profile::{PodIdentity, PodIdentityException};
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException, PodIdentityProfile};
use serde_json::{Value, json};

use crate::code::{self, Obstacle};

/// The kinds that the controller makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// AzureIdentity.
    Identity,
    /// AzureIdentityBinding.
    Binding,
    /// AzurePodIdentityException.
    Exception,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What an object is wanted for: an entry of the profile, by its place, or the add-ons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// Place among the identities.
    Identity(usize),
    /// Place among the exceptions.
    Exception(usize),
    /// The exception for the cluster's own add-ons.
    Addon,
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Desired {
    pub(crate) entry: Entry,
    pub(crate) spec: Value,
    /// Its annotations, all of [`OUR_ANNOTATIONS`].
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The annotations that the controller writes; all others are people's.
pub(crate) const OUR_ANNOTATIONS: &[&str] = &[OBJECT_ID_ANNOTATION];

/// All that the profile wants.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) objects: BTreeMap<Key, Desired>,
    pub(crate) obstacles: BTreeMap<Entry, Obstacle>,
}

/// What the refusal of kubenet says, in AKS's words and with the way out.
pub(crate) const KUBENET_TEXT: &str = "Network plugin kubenet is not supported to use with PodIdentity addon: a pod with NET_RAW may take another pod's address; \
     set allowNetworkPluginKubenet to accept that";

/// Works out what `profile` wants; nothing at all when there is none, when it is off, or when it is on its way out.
pub(crate) fn wanted(profile: Option<&PodIdentityProfile>) -> Wanted {
    let mut wanted = Wanted::default();
    let Some(profile) = profile.filter(|profile| in_force(profile)) else {
        return wanted;
    };
    let spec = &profile.spec;
    if spec.kubenet_refused() {
        let refused = || Obstacle::new(code::KUBENET, KUBENET_TEXT);
        wanted
            .obstacles
            .extend((0..spec.identities().len()).map(|at| (Entry::Identity(at), refused())));
        wanted
            .obstacles
            .extend((0..spec.exceptions().len()).map(|at| (Entry::Exception(at), refused())));
        return wanted;
    }
    wanted.addon();
    for (at, identity) in spec.identities().iter().enumerate() {
        wanted.identity(Entry::Identity(at), identity);
    }
    for (at, exception) in spec.exceptions().iter().enumerate() {
        wanted.exception(Entry::Exception(at), exception);
    }
    wanted
}

/// Whether the profile is on, and to stay.
pub(crate) fn in_force(profile: &PodIdentityProfile) -> bool {
    profile.spec.enabled && profile.metadata.deletion_timestamp.is_none()
}

impl Wanted {
    fn addon(&mut self) {
        let key = Key::new(Kind::Exception, ADDON_NAMESPACE, ADDON_EXCEPTION);
        let spec = json!({ "podLabels": { ADDON_LABEL: ADDON_LABEL_VALUE } });
        self.objects.insert(key, Desired::new(Entry::Addon, spec));
    }

    fn identity(&mut self, entry: Entry, pod_identity: &PodIdentity) {
        let PodIdentity {
            name,
            namespace,
            identity,
            ..
        } = pod_identity;
        let selector = pod_identity.selector();
        if selector.len() > 63 {
            let text = format!(
                "the selector {selector:?} has more than 63 characters, so no pod can carry it as a label"
            );
            self.obstacles.insert(entry, Obstacle::new(code::SELECTOR, text));
            return;
        }
        let key = Key::new(Kind::Identity, namespace, name);
        if self.objects.contains_key(&key) {
            self.duplicate(entry, &key);
            return;
        }
        let mut spec = json!({ "type": 0, "resourceID": identity.resource_id });
        if let (Some(spec), Some(client_id)) = (spec.as_object_mut(), &identity.client_id) {
            spec.insert("clientID".to_owned(), json!(client_id));
        }
        let binding = json!({ "azureIdentity": name, "selector": selector });
        let mut desired = Desired::new(entry, spec);
        if let Some(object_id) = &identity.object_id {
            desired
                .annotations
                .insert(OBJECT_ID_ANNOTATION.to_owned(), object_id.clone());
        }
        self.objects.insert(key, desired);
        self.objects.insert(
            Key::new(Kind::Binding, namespace, name),
            Desired::new(entry, binding),
        );
    }

    fn exception(&mut self, entry: Entry, exception: &PodIdentityException) {
        let PodIdentityException {
            name,
            namespace,
            pod_labels,
        } = exception;
        let key = Key::new(Kind::Exception, namespace, name);
        match self.objects.get(&key).map(|other| other.entry) {
            Some(Entry::Addon) => {
                let text = format!("the exception {key} belongs to podid itself; choose another name");
                self.obstacles.insert(entry, Obstacle::new(code::RESERVED, text));
            }
            Some(_) => self.duplicate(entry, &key),
            None => {
                let spec = json!({ "podLabels": pod_labels });
                self.objects.insert(key, Desired::new(entry, spec));
            }
        }
    }

    fn duplicate(&mut self, entry: Entry, key: &Key) {
        let text = format!("{key} stands in the profile twice; the first one counts");
        self.obstacles.insert(entry, Obstacle::new(code::DUPLICATE, text));
    }

    /// Takes back all objects of entries that have an obstacle: an entry is there as a whole or not at all.
    pub(crate) fn refuse(&mut self, obstacles: BTreeMap<Entry, Obstacle>) {
        let refused: BTreeSet<Entry> = obstacles.keys().copied().collect();
        self.objects
            .retain(|_, desired| !refused.contains(&desired.entry));
        self.obstacles.extend(obstacles);
    }
}

impl Desired {
    fn new(entry: Entry, spec: Value) -> Self {
        Self {
            entry,
            spec,
            annotations: BTreeMap::new(),
        }
    }
}

impl Key {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}

impl Kind {
    /// All kinds that the controller makes.
    pub(crate) const ALL: [Self; 3] = [Self::Identity, Self::Binding, Self::Exception];

    /// The kind's name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Identity => "AzureIdentity",
            Self::Binding => "AzureIdentityBinding",
            Self::Exception => "AzurePodIdentityException",
        }
    }

    /// Name of the task that watches the kind.
    pub(crate) fn watch(self) -> &'static str {
        match self {
            Self::Identity => "watch-identities",
            Self::Binding => "watch-bindings",
            Self::Exception => "watch-exceptions",
        }
    }

    /// The kind for kube's untyped client.
    pub(crate) fn resource(self) -> kube::core::ApiResource {
        use kube::core::ApiResource;
        match self {
            Self::Identity => ApiResource::erase::<AzureIdentity>(&()),
            Self::Binding => ApiResource::erase::<AzureIdentityBinding>(&()),
            Self::Exception => ApiResource::erase::<AzurePodIdentityException>(&()),
        }
    }
}
