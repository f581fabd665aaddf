//! `podid get`: the custom resources of the original, as they are in the cluster.

use clap::{Args, ValueEnum};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, Resource, ResourceExt};
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::CliError;
use crate::output::{Format, Listing};
use crate::printer::Printer;

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
}

/// Flags of `podid get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// Kind of objects
    pub kind: Kind,

    /// Namespace; that of the kubeconfig's context when not given
    #[arg(short, long, value_name = "NS")]
    pub namespace: Option<String>,

    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,

    /// Format
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What kubectl prints for several objects.
#[derive(Serialize)]
struct List {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    items: Vec<DynamicObject>,
}

impl GetArgs {
    pub(crate) async fn run(self, client: Client, printer: &mut Printer) -> Result<(), CliError> {
        match self.kind {
            Kind::Identities => {
                let titles = ["NAME", "TYPE", "CLIENTID", "RESOURCEID"];
                self.list::<AzureIdentity>(client, printer, &titles, |identity| {
                    let folded = identity.folded().map_err(|error| error.to_string())?;
                    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                    Ok(vec![
                        folded.kind.to_string(),
                        text(folded.client_id),
                        text(folded.resource_id),
                    ])
                })
                .await
            }
            Kind::Bindings => {
                let titles = ["NAME", "AZUREIDENTITY", "SELECTOR"];
                self.list::<AzureIdentityBinding>(client, printer, &titles, |binding| {
                    let (identity, selector) = binding.folded().map_err(|error| error.to_string())?;
                    Ok(vec![
                        identity.unwrap_or_default().to_owned(),
                        selector.unwrap_or_default().to_owned(),
                    ])
                })
                .await
            }
            Kind::Exceptions => {
                let titles = ["NAME", "PODLABELS"];
                self.list::<AzurePodIdentityException>(client, printer, &titles, |exception| {
                    let labels = exception.folded().map_err(|error| error.to_string())?;
                    Ok(vec![
                        labels
                            .into_iter()
                            .flatten()
                            .map(|(k, v)| format!("{k}={v}"))
                            .collect::<Vec<_>>()
                            .join(","),
                    ])
                })
                .await
            }
        }
    }

    /// Lists objects untyped, so that one malformed object hides no other.
    async fn list<K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug>(
        &self,
        client: Client,
        printer: &mut Printer,
        titles: &[&str],
        cells: impl Fn(&K) -> Result<Vec<String>, String> + Send,
    ) -> Result<(), CliError> {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match &self.namespace {
            _ if self.all_namespaces => Api::all_with(client, &resource),
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::default_namespaced_with(client, &resource),
        };
        let found = api
            .list(&ListParams::default())
            .await
            .map_err(|error| CliError::from_kube(format!("list {}", resource.plural), error))?;
        let mut items = found.items;
        items.sort_by_key(|object| (object.namespace(), object.name_any()));
        for object in &mut items {
            // A list's items come without their kind.
            object.types = Some(kube::api::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
        }

        let mut rows = Vec::with_capacity(items.len());
        for object in &items {
            let mut row = Vec::with_capacity(titles.len().saturating_add(1));
            if self.all_namespaces {
                row.push(object.namespace().unwrap_or_default());
            }
            row.push(object.name_any());
            let typed = object.clone().try_parse::<K>().map_err(|error| error.to_string());
            match typed.and_then(|typed| cells(&typed)) {
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
        let names = items
            .iter()
            .map(|object| format!("{singular}/{}", object.name_any()))
            .collect();
        let titles: Vec<&str> = self
            .all_namespaces
            .then_some("NAMESPACE")
            .into_iter()
            .chain(titles.iter().copied())
            .collect();
        let data = List {
            api_version: "v1",
            kind: "List",
            items,
        };
        Listing {
            what: &resource.plural,
            titles: &titles,
            rows,
            names,
            data: &data,
        }
        .print(self.output, printer)
    }
}
