//! `podid get`: the custom resources of the original as they are in the cluster, and which pod would get what.

mod pods;

use clap::{Args, ValueEnum};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, Resource, ResourceExt};
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::pods::IdentityView;
use crate::error::CliError;
use crate::output::{self, Format, Listing, labels};
use crate::printer::Printer;
use crate::world::PolicyArgs;

/// What to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// AzureIdentity objects.
    #[value(alias = "identity", alias = "azureidentities", alias = "azureidentity")]
    Identities,
    /// AzureIdentityBinding objects.
    #[value(
        alias = "binding",
        alias = "azureidentitybindings",
        alias = "azureidentitybinding"
    )]
    Bindings,
    /// AzurePodIdentityException objects.
    #[value(
        alias = "exception",
        alias = "azurepodidentityexceptions",
        alias = "azurepodidentityexception"
    )]
    Exceptions,
    /// Pods, each with the identity that it would get, or why it gets none.
    #[value(alias = "pod", alias = "po")]
    Pods,
}

/// Flags of `podid get`.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = "\
`pods` runs the agent's own decision over what the cluster declares now: what a request gets that names no identity, which
further ones the pod may name, and the reason code when it gets none. The pod is not asked, nor is Azure.

Examples:
  podid get identities -A
  podid get pods --namespace my-app
  podid get pods web-7d4b9 -n my-app -o yaml
  podid get pods -A -l app=web -o json | jq '.[] | select(.identity == null)'")]
pub struct GetArgs {
    /// Kind of objects
    #[arg(value_name = "KIND")]
    pub kind: Kind,

    /// Only these
    #[arg(value_name = "NAME", conflicts_with_all = ["all_namespaces", "selector"])]
    pub names: Vec<String>,

    #[command(flatten)]
    pub scope: ScopeArgs,

    /// Only objects with these labels, in kubectl's words: `app=web,tier!=db`
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,

    /// Format
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    pub output: Format,

    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Where to look.
#[derive(Args, Clone, Debug, Default)]
pub struct ScopeArgs {
    /// Namespace; that of the kubeconfig's context when not given
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,

    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

impl ScopeArgs {
    /// An API of the objects there.
    pub(crate) fn api<K>(&self, client: Client, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource>,
        K: Resource<Scope = kube::core::DynamicResourceScope>,
    {
        match &self.namespace {
            _ if self.all_namespaces => Api::all_with(client, resource),
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::default_namespaced_with(client, resource),
        }
    }
}

/// What kubectl prints for several objects.
#[derive(Serialize)]
struct List {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    items: Vec<DynamicObject>,
}

/// One kind, as people see it.
struct Columns<K> {
    /// What many of them are called.
    what: &'static str,
    /// Behind NAME.
    titles: &'static [&'static str],
    /// A cell for each, or why the object is malformed.
    cells: fn(&K) -> Result<Vec<String>, String>,
}

const IDENTITIES: Columns<AzureIdentity> = Columns {
    what: "azureidentities",
    titles: &["TYPE", "CLIENTID", "RESOURCEID"],
    cells: |identity| {
        let folded = identity.folded().map_err(|error| error.to_string())?;
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Ok(vec![
            folded.kind.to_string(),
            text(folded.client_id),
            text(folded.resource_id),
        ])
    },
};

const BINDINGS: Columns<AzureIdentityBinding> = Columns {
    what: "azureidentitybindings",
    titles: &["AZUREIDENTITY", "SELECTOR"],
    cells: |binding| {
        let (identity, selector) = binding.folded().map_err(|error| error.to_string())?;
        Ok(vec![
            identity.unwrap_or_default().to_owned(),
            selector.unwrap_or_default().to_owned(),
        ])
    },
};

const EXCEPTIONS: Columns<AzurePodIdentityException> = Columns {
    what: "azurepodidentityexceptions",
    titles: &["PODLABELS"],
    cells: |exception| {
        let folded = exception.folded().map_err(|error| error.to_string())?;
        Ok(vec![labels(folded.into_iter().flatten())])
    },
};

impl GetArgs {
    pub(crate) async fn run(self, client: Client, printer: &mut Printer) -> Result<(), CliError> {
        match self.kind {
            Kind::Identities => self.resources(client, &IDENTITIES, printer).await,
            Kind::Bindings => self.resources(client, &BINDINGS, printer).await,
            Kind::Exceptions => self.resources(client, &EXCEPTIONS, printer).await,
            Kind::Pods => pods::run(self, client, printer).await,
        }
    }

    /// What the API server is asked for.
    fn params(&self) -> ListParams {
        ListParams {
            label_selector: self.selector.clone(),
            ..ListParams::default()
        }
    }

    /// Gets objects untyped, so that one malformed object hides no other.
    async fn resources<K: Resource<DynamicType = ()> + DeserializeOwned>(
        &self,
        client: Client,
        columns: &Columns<K>,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = self.scope.api(client, &resource);
        let (mut items, missing) = fetch(&api, &resource.plural, &self.names, &self.params()).await?;
        for object in &mut items {
            // A list's items come without their kind.
            object.types = Some(kube::api::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
            object.metadata.managed_fields = None;
        }

        let everywhere = self.scope.all_namespaces;
        let mut rows = Vec::with_capacity(items.len());
        for object in &items {
            let namespace = everywhere.then(|| object.namespace().unwrap_or_default());
            let mut row: Vec<_> = namespace.into_iter().chain([object.name_any()]).collect();
            let typed = object.clone().try_parse::<K>().map_err(|error| error.to_string());
            match typed.and_then(|typed| (columns.cells)(&typed)) {
                Ok(cells) => row.extend(cells),
                Err(why) => {
                    let name = object.name_any();
                    printer.say(&format!("warning: {} {name} is malformed: {why}", resource.kind));
                    row.push("<malformed>".to_owned());
                }
            }
            rows.push(row);
        }
        let singular = format!("{}.{}", resource.kind.to_lowercase(), resource.group);
        let names: Vec<_> = items
            .iter()
            .map(|object| format!("{singular}/{}", object.name_any()))
            .collect();
        let one = self.names.len() == 1 && matches!(self.output, Format::Json | Format::Yaml);
        if let (true, [only]) = (one, items.as_slice()) {
            output::object(only, "", self.output, printer)?;
        } else if self.names.is_empty() || !items.is_empty() {
            let listing = Listing {
                what: columns.what,
                titles: everywhere
                    .then_some("NAMESPACE")
                    .into_iter()
                    .chain(["NAME"])
                    .chain(columns.titles.iter().copied())
                    .collect(),
                rows,
                names,
                data: List {
                    api_version: "v1",
                    kind: "List",
                    items,
                },
            };
            listing.print(self.output, printer)?;
        }
        no_such(columns.what, missing)
    }
}

/// The objects of these names, in their order, and which of them are not there; all of them, by namespace and name,
/// when none is named.
pub(crate) async fn fetch<K>(
    api: &Api<K>,
    plural: &str,
    names: &[String],
    params: &ListParams,
) -> Result<(Vec<K>, Vec<String>), CliError>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let failed = |error| CliError::from_kube(format!("list {plural}"), error);
    if names.is_empty() {
        let mut items = api.list(params).await.map_err(failed)?.items;
        items.sort_by_key(|object| (object.namespace(), object.name_any()));
        return Ok((items, Vec::new()));
    }
    let mut items = Vec::with_capacity(names.len());
    let mut missing = Vec::new();
    for name in names {
        match api.get_opt(name).await.map_err(failed)? {
            Some(object) => items.push(object),
            None => missing.push(name.clone()),
        }
    }
    Ok((items, missing))
}

/// An error about those that are not there, if there are any.
fn no_such(plural: &str, names: Vec<String>) -> Result<(), CliError> {
    if names.is_empty() {
        return Ok(());
    }
    Err(CliError::NoSuchObjects {
        plural: plural.to_owned(),
        names,
    })
}
