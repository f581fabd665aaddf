//! How lists and maps merge, by their place in an object: for built-in kinds from a table, for custom resources from
//! their schema. Server-side apply, strategic merge patches and managed fields all ask here.

use crate::schema::{ListType, Node};

/// A place in an object.
#[derive(Clone, Debug)]
pub(crate) enum Shape<'a> {
    /// In a custom resource; none where the schema says nothing.
    Custom { node: Option<&'a Node>, root: bool },
    /// In a built-in kind (or in anybody's metadata): the path without indices.
    Builtin { kind: &'a str, path: String },
}

/// How a list merges in server-side apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Merge {
    /// As one value.
    Atomic,
    /// By value.
    Set,
    /// By these keys.
    Map(Vec<String>),
}

struct Rule {
    kind: &'static str,
    path: &'static str,
    /// Keys of server-side apply; empty is a set.
    keys: &'static [&'static str],
    /// The key of a strategic merge patch: none when the list is replaced, empty for scalars.
    strategic: Option<&'static str>,
}

const fn rule(
    kind: &'static str,
    path: &'static str,
    keys: &'static [&'static str],
    strategic: Option<&'static str>,
) -> Rule {
    Rule {
        kind,
        path,
        keys,
        strategic,
    }
}

/// Lists that are not atomic. Source: `x-kubernetes-list-map-keys` and `x-kubernetes-patch-merge-key` of the Kubernetes
/// 1.37 OpenAPI document. `C` stands for each list of containers.
const LISTS: &[Rule] = &[
    rule("*", "metadata.ownerReferences", &["uid"], Some("uid")),
    rule("*", "metadata.finalizers", &[], Some("")),
    rule("Pod", "spec.containers", &["name"], Some("name")),
    rule("Pod", "spec.initContainers", &["name"], Some("name")),
    rule("Pod", "spec.ephemeralContainers", &["name"], Some("name")),
    rule("Pod", "C.env", &["name"], Some("name")),
    rule(
        "Pod",
        "C.ports",
        &["containerPort", "protocol"],
        Some("containerPort"),
    ),
    rule("Pod", "C.volumeMounts", &["mountPath"], Some("mountPath")),
    rule("Pod", "C.volumeDevices", &["devicePath"], Some("devicePath")),
    rule("Pod", "C.resources.claims", &["name"], None),
    rule("Pod", "spec.imagePullSecrets", &["name"], Some("name")),
    rule("Pod", "spec.volumes", &["name"], Some("name")),
    rule("Pod", "spec.hostAliases", &["ip"], Some("ip")),
    rule(
        "Pod",
        "spec.topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        Some("topologyKey"),
    ),
    rule("Pod", "spec.schedulingGates", &["name"], Some("name")),
    rule("Pod", "spec.resourceClaims", &["name"], Some("name")),
    rule("Pod", "status.conditions", &["type"], Some("type")),
    rule("Pod", "status.podIPs", &["ip"], Some("ip")),
    rule("Node", "status.conditions", &["type"], Some("type")),
    rule("Node", "status.addresses", &["type"], Some("type")),
    rule("Node", "spec.podCIDRs", &[], Some("")),
    rule("Namespace", "status.conditions", &["type"], Some("type")),
    rule("ServiceAccount", "secrets", &["name"], Some("name")),
    rule("CustomResourceDefinition", "status.conditions", &["type"], None),
];

/// Maps that server-side apply takes as one value.
const ATOMIC_MAPS: &[(&str, &str)] = &[
    ("Pod", "spec.nodeSelector"),
    (
        "Pod",
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution",
    ),
    ("Pod", "C.env.valueFrom.configMapKeyRef"),
    ("Pod", "C.env.valueFrom.fieldRef"),
    ("Pod", "C.env.valueFrom.resourceFieldRef"),
    ("Pod", "C.env.valueFrom.secretKeyRef"),
    ("Node", "spec.configSource"),
    ("Event", "involvedObject"),
    ("Event", "related"),
];

impl<'a> Shape<'a> {
    /// The root of a built-in kind.
    pub(crate) fn builtin(kind: &'a str) -> Self {
        Self::Builtin {
            kind,
            path: String::new(),
        }
    }

    /// The root of a custom resource.
    pub(crate) fn custom(node: &'a Node) -> Self {
        Self::Custom {
            node: Some(node),
            root: true,
        }
    }

    /// A field of this object.
    pub(crate) fn field(&self, name: &str) -> Self {
        match self {
            Self::Custom { root: true, .. } if name == "metadata" => Self::Builtin {
                kind: "*",
                path: "metadata".to_owned(),
            },
            Self::Custom { node, .. } => Self::Custom {
                node: node.and_then(|node| node.field(name)),
                root: false,
            },
            Self::Builtin { kind, path } => {
                let full = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                };
                let containers = [
                    "spec.containers",
                    "spec.initContainers",
                    "spec.ephemeralContainers",
                ];
                let path = match containers
                    .iter()
                    .find_map(|list| full.strip_prefix(&format!("{list}.")))
                {
                    Some(rest) => format!("C.{rest}"),
                    None => full,
                };
                Self::Builtin { kind, path }
            }
        }
    }

    /// An item of this list.
    pub(crate) fn item(&self) -> Self {
        match self {
            Self::Custom { node, .. } => Self::Custom {
                node: node.and_then(|node| node.items.as_deref()),
                root: false,
            },
            builtin @ Self::Builtin { .. } => builtin.clone(),
        }
    }

    /// How this list merges in server-side apply.
    pub(crate) fn list(&self) -> Merge {
        match self {
            Self::Custom { node, .. } => match node.map(|node| &node.list_type) {
                Some(ListType::Set) => Merge::Set,
                Some(ListType::Map(keys)) => Merge::Map(keys.clone()),
                Some(ListType::Atomic) | None => Merge::Atomic,
            },
            Self::Builtin { .. } => match self.rule() {
                None => Merge::Atomic,
                Some(rule) if rule.keys.is_empty() => Merge::Set,
                Some(rule) => Merge::Map(rule.keys.iter().map(|key| (*key).to_owned()).collect()),
            },
        }
    }

    /// The value of a list key that an item leaves out.
    pub(crate) fn key_default(&self, key: &str) -> Option<serde_json::Value> {
        match self {
            Self::Custom { node, .. } => {
                node.and_then(|node| node.items.as_deref()?.properties.get(key)?.default.clone())
            }
            Self::Builtin { path, .. } => {
                (path == "C.ports" && key == "protocol").then(|| serde_json::Value::from("TCP"))
            }
        }
    }

    /// Whether server-side apply takes this map as one value.
    pub(crate) fn is_atomic_map(&self) -> bool {
        match self {
            Self::Custom { node, .. } => node.is_some_and(|node| node.map_is_atomic),
            Self::Builtin { kind, path } => ATOMIC_MAPS.iter().any(|(of, at)| of == kind && at == path),
        }
    }

    /// How a strategic merge patch merges this list: none replaces it, an empty key merges scalars.
    pub(crate) fn strategic_key(&self) -> Option<&'static str> {
        self.rule().and_then(|rule| rule.strategic)
    }

    fn rule(&self) -> Option<&'static Rule> {
        match self {
            Self::Custom { .. } => None,
            Self::Builtin { kind, path } => LISTS
                .iter()
                .find(|rule| rule.path == path && (rule.kind == "*" || rule.kind == *kind)),
        }
    }
}
