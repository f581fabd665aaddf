//! Which resources there are: descriptors of the built-in kinds and of the kinds that CRDs add at run time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::cel::Rules;
use crate::schema::Structural;
use crate::shape::Shape;

/// Verbs that a stored resource has.
pub(crate) const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// A column of a CRD's table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: String,
}

/// One kind at one version.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Names of subresources: `status`, `log`, …
    pub(crate) subresources: Vec<String>,
    /// Field labels that a fieldSelector may name.
    pub(crate) fields: Vec<String>,
    /// What a CRD says; none for built-in kinds.
    pub(crate) custom: Option<Arc<Custom>>,
    /// Built-in kinds of a second group share the objects of the first (events).
    pub(crate) stored_as: Option<(&'static str, &'static str)>,
}

/// The part of a resource that comes from a CRD's version.
#[derive(Debug)]
pub(crate) struct Custom {
    /// The CRD's name.
    pub(crate) crd: String,
    pub(crate) schema: Structural,
    pub(crate) rules: Rules,
    pub(crate) columns: Vec<Column>,
    /// Uid and generation of the definition that it was read from.
    pub(crate) origin: (String, i64),
    /// The version in which objects are stored, `podid.dev/v1alpha1`.
    pub(crate) stored_version: String,
}

impl Resource {
    /// `v1`, `coordination.k8s.io/v1`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Under which key its objects are stored.
    pub(crate) fn store_key(&self) -> String {
        match self.stored_as {
            Some((group, plural)) => crate::status::qualified(plural, group),
            None => crate::status::qualified(&self.plural, &self.group),
        }
    }

    /// Whether the status can be written only through the subresource.
    pub(crate) fn has_status(&self) -> bool {
        self.subresources.iter().any(|name| name == "status")
    }

    /// `pods`, `leases.coordination.k8s.io`, as errors name it.
    pub(crate) fn qualified(&self) -> String {
        crate::status::qualified(&self.plural, &self.group)
    }

    /// How its lists and maps merge.
    pub(crate) fn shape(&self) -> Shape<'_> {
        match &self.custom {
            Some(custom) => Shape::custom(&custom.schema.root),
            None => Shape::builtin(&self.kind),
        }
    }

    /// Whether changes of the spec are counted in `metadata.generation`.
    pub(crate) fn counts_generations(&self) -> bool {
        self.is_custom() || matches!(self.kind.as_str(), "Pod" | "CustomResourceDefinition")
    }

    /// Whether it came by a CRD.
    pub(crate) fn is_custom(&self) -> bool {
        self.custom.is_some()
    }
}

/// All resources served at the moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    by_path: BTreeMap<(String, String, String), Arc<Resource>>,
}

impl Registry {
    /// The built-in kinds.
    pub(crate) fn builtin() -> Self {
        let mut registry = Self::default();
        for resource in builtin() {
            registry.add(resource);
        }
        registry
    }

    /// Serves one more resource, or replaces it.
    fn add(&mut self, resource: Resource) {
        self.add_shared(Arc::new(resource));
    }

    /// The same for one that others serve too.
    pub(crate) fn add_shared(&mut self, resource: Arc<Resource>) {
        let key = (
            resource.group.clone(),
            resource.version.clone(),
            resource.plural.clone(),
        );
        self.by_path.insert(key, resource);
    }

    /// The resource of a request's path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.by_path
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
            .cloned()
    }

    /// The resource of an `apiVersion` and a `kind`.
    pub(crate) fn of_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Resource>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.all()
            .find(|one| one.group == group && one.version == version && one.kind == kind)
            .cloned()
    }

    /// Every resource, by group, version and plural.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_path.values()
    }

    /// One resource for each stored kind, to go over all objects.
    pub(crate) fn stored(&self) -> Vec<Arc<Resource>> {
        let mut stored: BTreeMap<String, Arc<Resource>> = BTreeMap::new();
        for resource in self.all().filter(|one| one.stored_as.is_none()) {
            stored
                .entry(resource.store_key())
                .or_insert_with(|| Arc::clone(resource));
        }
        stored.into_values().collect()
    }
}

/// A custom resource's descriptor from one version of an accepted CRD.
pub(crate) fn from_crd(crd: &Value, version: &Value, schema: Structural, rules: Rules) -> Resource {
    use crate::json::{list, text};
    let spec = |path: &[&str]| text(crd, path).to_owned();
    let strings = |value: &[Value]| {
        value
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let names = |field: &'static str| spec(&["status", "acceptedNames", field]);
    let columns = list(version, &["additionalPrinterColumns"])
        .iter()
        .map(|column| Column {
            name: text(column, &["name"]).to_owned(),
            kind: text(column, &["type"]).to_owned(),
            format: text(column, &["format"]).to_owned(),
            description: text(column, &["description"]).to_owned(),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            path: text(column, &["jsonPath"]).to_owned(),
        })
        .collect();
    let mut fields = vec!["metadata.name".to_owned(), "metadata.namespace".to_owned()];
    for field in list(version, &["selectableFields"]) {
        fields.push(text(field, &["jsonPath"]).trim_start_matches('.').to_owned());
    }
    let subresources = version
        .get("subresources")
        .and_then(Value::as_object)
        .map(|map| map.keys().filter(|key| *key == "status").cloned().collect())
        .unwrap_or_default();
    Resource {
        group: spec(&["spec", "group"]),
        version: text(version, &["name"]).to_owned(),
        kind: names("kind"),
        list_kind: names("listKind"),
        plural: names("plural"),
        singular: names("singular"),
        short_names: strings(list(crd, &["status", "acceptedNames", "shortNames"])),
        categories: strings(list(crd, &["status", "acceptedNames", "categories"])),
        namespaced: text(crd, &["spec", "scope"]) == "Namespaced",
        subresources,
        fields,
        custom: Some(Arc::new(Custom {
            crd: crate::json::name(crd).to_owned(),
            schema,
            rules,
            columns,
            origin: (
                crate::json::uid(crd).to_owned(),
                crate::json::at(crd, &["metadata", "generation"])
                    .and_then(Value::as_i64)
                    .unwrap_or_default(),
            ),
            stored_version: list(crd, &["spec", "versions"])
                .iter()
                .find(|one| one.get("storage").and_then(Value::as_bool).unwrap_or_default())
                .map(|one| format!("{}/{}", spec(&["spec", "group"]), text(one, &["name"])))
                .unwrap_or_default(),
        })),
        stored_as: None,
    }
}

fn builtin() -> Vec<Resource> {
    let mut all = vec![
        core(
            "Pod",
            "pods",
            &["po"],
            &["all"],
            true,
            &["status", "log", "binding", "eviction"],
        ),
        core(
            "Namespace",
            "namespaces",
            &["ns"],
            &[],
            false,
            &["status", "finalize"],
        ),
        core("Node", "nodes", &["no"], &[], false, &["status"]),
        core(
            "ServiceAccount",
            "serviceaccounts",
            &["sa"],
            &[],
            true,
            &["token"],
        ),
        core("Secret", "secrets", &[], &[], true, &[]),
        core("ConfigMap", "configmaps", &["cm"], &[], true, &[]),
        core("Event", "events", &["ev"], &[], true, &[]),
    ];
    let mut events = core("Event", "events", &["ev"], &[], true, &[]);
    "events.k8s.io".clone_into(&mut events.group);
    events.stored_as = Some(("", "events"));
    all.push(events);
    let mut leases = core("Lease", "leases", &[], &[], true, &[]);
    "coordination.k8s.io".clone_into(&mut leases.group);
    all.push(leases);
    let mut crds = core(
        "CustomResourceDefinition",
        "customresourcedefinitions",
        &["crd", "crds"],
        &["api-extensions"],
        false,
        &["status"],
    );
    "apiextensions.k8s.io".clone_into(&mut crds.group);
    all.push(crds);
    for resource in &mut all {
        let more: &[&str] = match (resource.group.as_str(), resource.kind.as_str()) {
            ("", "Pod") => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            ("", "Namespace") => &["status.phase"],
            ("", "Node") => &["spec.unschedulable"],
            ("", "Secret") => &["type"],
            ("", "Event") => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            ("events.k8s.io", "Event") => &[
                "regarding.kind",
                "regarding.namespace",
                "regarding.name",
                "regarding.uid",
                "regarding.apiVersion",
                "reason",
                "reportingController",
                "type",
            ],
            _ => &[],
        };
        resource
            .fields
            .extend(more.iter().map(|field| (*field).to_owned()));
    }
    all
}

fn core(
    kind: &str,
    plural: &str,
    short_names: &[&str],
    categories: &[&str],
    namespaced: bool,
    subresources: &[&str],
) -> Resource {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Resource {
        group: String::new(),
        version: "v1".to_owned(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        short_names: owned(short_names),
        categories: owned(categories),
        namespaced,
        subresources: owned(subresources),
        fields: owned(&["metadata.name", "metadata.namespace"]),
        custom: None,
        stored_as: None,
    }
}
