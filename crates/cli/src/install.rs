//! `podid install`: the objects that the chart renders, applied in order and waited for. It refuses to put a second
//! interceptor beside another. Settings beyond namespace and images are Helm's business.
//!
//! who else is there? ─▶ apply each ─▶ definitions established ─▶ agents and controller rolled out

mod objects;
mod other;
mod remove;
mod rollout;

use std::time::Duration;

use clap::Args;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, TypeMeta};
use kube::{Api, Client, ResourceExt};

use self::objects::{NAMESPACE, Placing};
pub(crate) use self::remove::UninstallArgs;
use crate::error::CliError;
use crate::flags::Name;
use crate::output::Format;
use crate::printer::Printer;

/// Who applied, for the objects' managed fields.
const FIELD_MANAGER: &str = "podid-install";
/// How long a definition may take.
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Flags of `podid install`.
#[derive(Args, Clone, Debug)]
pub struct InstallArgs {
    /// Namespace to put podid in; made if it is not there
    #[arg(short, long, value_name = "NS", default_value = NAMESPACE)]
    pub namespace: Name,
    /// What stands before the images' names: a registry and a path in it
    #[arg(long, value_name = "REPOSITORY")]
    pub image_repository: Option<String>,
    /// Tag of the images; this program's version when not given
    #[arg(long, value_name = "TAG")]
    pub image_tag: Option<String>,
    /// Do not wait until podid runs on every node
    #[arg(long)]
    pub no_wait: bool,
    /// How long that may take, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 300)]
    pub timeout_secs: u64,
    /// Send nothing; print what would be applied
    #[arg(long)]
    pub dry_run: bool,
    /// Format of what is printed
    #[command(flatten)]
    pub shown: Shown,
}

/// How a dry run shows objects.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Format of a dry run
    #[arg(short, long, value_enum, default_value_t, requires = "dry_run")]
    pub output: Format,
}

impl Shown {
    /// Prints objects.
    fn print(self, objects: &[DynamicObject], printer: &mut Printer) -> Result<(), CliError> {
        let unwritable = |format, source: Box<dyn std::error::Error + Send + Sync>| CliError::Unwritable {
            format,
            source,
        };
        match self.output {
            Format::Table => printer.data(&objects.iter().map(objects::title).collect::<Vec<_>>().join("\n")),
            Format::Name => {
                let names = objects
                    .iter()
                    .map(|one| format!("{}/{}", objects::kind(one).to_lowercase(), one.name_any()));
                printer.data(&names.collect::<Vec<_>>().join("\n"));
            }
            Format::Json => {
                let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": objects });
                let text =
                    serde_json::to_string_pretty(&list).map_err(|error| unwritable("json", error.into()))?;
                printer.data(&text);
            }
            Format::Yaml => {
                let mut documents = Vec::new();
                for object in objects {
                    let text =
                        serde_saphyr::to_string(object).map_err(|error| unwritable("yaml", error.into()))?;
                    documents.push(text);
                }
                printer.data(&documents.join("---\n"));
            }
        }
        Ok(())
    }
}

impl InstallArgs {
    fn placing(&self) -> Placing<'_> {
        Placing {
            namespace: &self.namespace.0,
            repository: self.image_repository.as_deref(),
            tag: self.image_tag.as_deref(),
        }
    }

    fn objects(&self) -> Result<Vec<DynamicObject>, CliError> {
        objects::all(self.placing())
    }

    /// Prints what would be applied; true when that was all that was asked for.
    pub(crate) fn dry(&self, printer: &mut Printer) -> Result<bool, CliError> {
        if self.dry_run {
            self.shown.print(&self.objects()?, printer)?;
        }
        Ok(self.dry_run)
    }

    /// Installs or upgrades podid.
    pub(crate) async fn run(self, client: Client, printer: &mut Printer) -> Result<(), CliError> {
        if self.dry(printer)? {
            return Ok(());
        }
        self.refuse_beside_others(&client).await?;
        let mut objects = self.objects()?;
        if objects::serves_policy(&client).await? {
            objects.extend(objects::policy(self.placing())?);
        }
        for object in &objects {
            self.apply(&client, object, printer).await?;
        }
        for object in objects
            .iter()
            .filter(|one| objects::kind(one) == "CustomResourceDefinition")
        {
            rollout::finished(&client, object, ESTABLISHED, &mut Printer::nowhere()).await?;
        }
        if self.no_wait {
            return Ok(());
        }
        let limit = Duration::from_secs(self.timeout_secs);
        for object in objects
            .iter()
            .filter(|one| ["DaemonSet", "Deployment"].contains(&objects::kind(one)))
        {
            // Its generation is what the API server made of it.
            let there = objects::api(&client, object).get(&object.name_any()).await;
            let mut there = there
                .map_err(|error| CliError::from_kube(format!("read {}", objects::title(object)), error))?;
            there.types.clone_from(&object.types);
            rollout::finished(&client, &there, limit, printer).await?;
        }
        printer.say("podid runs on every node");
        printer.hint("`podid enable` and `podid add` give the pods of a namespace an identity");
        Ok(())
    }

    /// Two interceptors never run beside each other.
    async fn refuse_beside_others(&self, client: &Client) -> Result<(), CliError> {
        let mut workloads = Vec::new();
        for kind in ["DaemonSet", "Deployment"] {
            let types = TypeMeta {
                api_version: "apps/v1".to_owned(),
                kind: kind.to_owned(),
            };
            let api = Api::<DynamicObject>::all_with(client.clone(), &objects::resource(&types));
            let list = api.list(&ListParams::default()).await.map_err(|error| {
                CliError::from_kube(format!("list {kind}s, to find another interceptor"), error)
            })?;
            workloads.extend(list.items);
        }
        match other::refusal(&workloads, (&self.namespace.0, "podid-nmi")) {
            Some(sentence) => Err(CliError::Occupied(sentence)),
            None => Ok(()),
        }
    }

    async fn apply(
        &self,
        client: &Client,
        object: &DynamicObject,
        printer: &mut Printer,
    ) -> Result<(), CliError> {
        let (api, title) = (objects::api(client, object), objects::title(object));
        let refused = |error| CliError::from_kube(format!("apply {title}"), error);
        if objects::kind(object) == "Namespace" {
            // One that is there may be somebody else's: it is used as it is, and never deleted.
            let there = api.get_opt(&object.name_any()).await.map_err(refused)?;
            if there.is_some_and(|there| !objects::is_ours(&there)) {
                printer.say(&format!("{title} is there already, and is left as it is"));
                return Ok(());
            }
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&object.name_any(), &params, &Patch::Apply(object))
            .await
            .map_err(refused)?;
        printer.say(&format!("{title} applied"));
        Ok(())
    }
}

impl UninstallArgs {
    /// Prints what would be deleted; true when that was all that was asked for.
    pub(crate) fn dry(&self, printer: &mut Printer) -> Result<bool, CliError> {
        if self.dry_run {
            let objects = if self.nodes_only {
                Vec::new()
            } else {
                self.doomed()?
            };
            printer.say(
                "first the nodes are opened and the interception taken off them; then these are deleted:",
            );
            self.shown.print(&objects, printer)?;
        }
        Ok(self.dry_run)
    }
}
