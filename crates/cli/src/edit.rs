//! Edits of the one PodIdentityProfile: pure changes of its spec, and the loop that writes them.
//!
//! read ─▶ change ─▶ replace (with the version that was read) ─▶ done; changed meanwhile ─▶ read …

use kube::Api;
use kube::api::PostParams;
use podid_api::names::{MAX_EXCEPTIONS, MAX_IDENTITIES, PROFILE_NAME};
use podid_api::profile::{PodIdentity, PodIdentityException, PodIdentityProfile, PodIdentityProfileSpec};

use crate::error::CliError;
use crate::write::DryRun;

/// How often a change is tried again when others change the profile at the same time.
const TRIES: u32 = 8;
/// Who changed the profile, for its managed fields.
const FIELD_MANAGER: &str = "podid";

/// Something in a list of the profile, with a namespace and a name.
pub(crate) trait Entry {
    /// Which list.
    const KIND: Kind;
    fn namespace(&self) -> &str;
    fn name(&self) -> &str;
}

/// The two lists of the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pod identities.
    Identity,
    /// Pod identity exceptions.
    Exception,
}

impl Kind {
    /// What people call one of them.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Identity => "pod identity",
            Self::Exception => "pod identity exception",
        }
    }

    /// What people call many of them.
    pub(crate) fn many(self) -> &'static str {
        match self {
            Self::Identity => "pod identities",
            Self::Exception => "pod identity exceptions",
        }
    }

    /// Most of them in a cluster.
    fn most(self) -> u32 {
        match self {
            Self::Identity => MAX_IDENTITIES,
            Self::Exception => MAX_EXCEPTIONS,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.what())
    }
}

impl Entry for PodIdentity {
    const KIND: Kind = Kind::Identity;
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Entry for PodIdentityException {
    const KIND: Kind = Kind::Exception;
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn name(&self) -> &str {
        &self.name
    }
}

/// Adds `entry`; one of its namespace and name must not be there.
pub(crate) fn add<E: Entry>(list: &mut Option<Vec<E>>, entry: E) -> Result<(), CliError> {
    let list = list.get_or_insert_default();
    if list
        .iter()
        .any(|other| same(other, entry.namespace(), entry.name()))
    {
        return Err(CliError::Duplicate {
            what: E::KIND,
            namespace: entry.namespace().to_owned(),
            name: entry.name().to_owned(),
        });
    }
    if list.len() >= E::KIND.most() as usize {
        return Err(CliError::Full {
            what: E::KIND,
            most: E::KIND.most(),
        });
    }
    list.push(entry);
    Ok(())
}

/// Removes the entry of this namespace and name.
pub(crate) fn remove<E: Entry>(
    list: &mut Option<Vec<E>>,
    namespace: &str,
    name: &str,
) -> Result<(), CliError> {
    find(list, namespace, name)?;
    list.get_or_insert_default()
        .retain(|entry| !same(entry, namespace, name));
    Ok(())
}

/// The entry of this namespace and name.
pub(crate) fn find<'a, E: Entry>(
    list: &'a mut Option<Vec<E>>,
    namespace: &str,
    name: &str,
) -> Result<&'a mut E, CliError> {
    let list = list.get_or_insert_default();
    let elsewhere = list
        .iter()
        .filter(|entry| entry.name() == name)
        .map(|entry| entry.namespace().to_owned())
        .collect();
    list.iter_mut()
        .find(|entry| same(*entry, namespace, name))
        .ok_or_else(|| CliError::Missing {
            what: E::KIND,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            elsewhere,
        })
}

fn same(entry: &impl Entry, namespace: &str, name: &str) -> bool {
    entry.namespace() == namespace && entry.name() == name
}

/// The profile, if there is one.
pub(crate) async fn read(api: &Api<PodIdentityProfile>) -> Result<Option<PodIdentityProfile>, CliError> {
    api.get_opt(PROFILE_NAME)
        .await
        .map_err(|error| CliError::from_kube("read the PodIdentityProfile", error))
}

/// What an edit came to.
#[derive(Debug)]
pub(crate) struct Edited {
    /// The profile as it is now, or would be. None where there is none and none was needed.
    pub(crate) profile: Option<PodIdentityProfile>,
    /// Whether anything had to be written.
    pub(crate) changed: bool,
}

/// The profile, to be edited.
pub(crate) struct Editor<'a> {
    pub(crate) api: &'a Api<PodIdentityProfile>,
    pub(crate) dry_run: DryRun,
}

impl Editor<'_> {
    /// Reads the profile, lets `change` edit its spec, writes it; again when somebody else was faster.
    pub(crate) async fn change(
        &self,
        mut change: impl FnMut(&mut PodIdentityProfileSpec) -> Result<(), CliError> + Send,
    ) -> Result<Edited, CliError> {
        self.write(|spec| {
            let spec = spec.filter(|spec| spec.enabled).ok_or(CliError::NotEnabled)?;
            let before = spec.clone();
            change(spec)?;
            Ok(*spec != before)
        })
        .await
    }

    /// Switches pod identity on, making the profile if there is none; and whether it was off.
    pub(crate) async fn enable(
        &self,
        network_plugin: Option<&str>,
        with_kubenet: bool,
    ) -> Result<(bool, Edited), CliError> {
        let mut was_off = false;
        let edit = |spec: Option<&mut PodIdentityProfileSpec>| {
            let Some(spec) = spec else { return Ok(true) };
            was_off = !spec.enabled;
            let before = spec.clone();
            spec.enabled = true;
            if let Some(plugin) = network_plugin {
                spec.network_plugin = Some(plugin.to_owned());
            }
            if with_kubenet {
                spec.allow_network_plugin_kubenet = Some(true);
            }
            if spec.kubenet_refused() {
                return Err(CliError::Kubenet);
            }
            Ok(*spec != before)
        };
        let edited = self.write(edit).await?;
        Ok((was_off, edited))
    }

    /// Switches pod identity off: as `az aks update --disable-pod-identity`, this drops identities, exceptions and the
    /// consent to kubenet. And whether it was on, with how many identities and exceptions.
    pub(crate) async fn disable(&self) -> Result<(Option<(usize, usize)>, Edited), CliError> {
        let mut was_on = None;
        let edit = |spec: Option<&mut PodIdentityProfileSpec>| {
            let Some(spec) = spec else { return Ok(false) };
            let before = std::mem::take(spec);
            was_on = before
                .enabled
                .then(|| (before.identities().len(), before.exceptions().len()));
            spec.network_plugin.clone_from(&before.network_plugin);
            Ok(*spec != before)
        };
        let edited = self.write(edit).await?;
        Ok((was_on, edited))
    }

    /// Reads, edits and writes until nobody is faster. `edit` says whether there is something to write; it is asked with
    /// none when there is no profile, and then again with an empty one if it wants one made.
    async fn write(
        &self,
        mut edit: impl FnMut(Option<&mut PodIdentityProfileSpec>) -> Result<bool, CliError> + Send,
    ) -> Result<Edited, CliError> {
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            dry_run: self.dry_run == DryRun::Server,
        };
        for _try in 0..TRIES {
            let (profile, there) = if let Some(mut profile) = read(self.api).await? {
                if !edit(Some(&mut profile.spec))? {
                    return Ok(Edited {
                        profile: Some(profile),
                        changed: false,
                    });
                }
                (profile, true)
            } else {
                let mut profile = PodIdentityProfile::new(PROFILE_NAME, PodIdentityProfileSpec::default());
                if !(edit(None)? && edit(Some(&mut profile.spec))?) {
                    return Ok(Edited {
                        profile: None,
                        changed: false,
                    });
                }
                (profile, false)
            };
            let written = if self.dry_run == DryRun::Client {
                Ok(profile)
            } else if there {
                self.api.replace(PROFILE_NAME, &params, &profile).await
            } else {
                self.api.create(&params, &profile).await
            };
            match written {
                Ok(profile) => {
                    return Ok(Edited {
                        profile: Some(profile),
                        changed: true,
                    });
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(CliError::from_kube("change the PodIdentityProfile", error)),
            }
        }
        Err(CliError::Contended { tries: TRIES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(namespace: &str, name: &str) -> PodIdentityException {
        PodIdentityException {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            pod_labels: std::iter::once(("app".to_owned(), "x".to_owned())).collect(),
        }
    }

    #[test]
    fn the_same_name_in_another_namespace_is_another_entry() {
        let mut list = None;
        add(&mut list, exception("a", "x")).unwrap();
        add(&mut list, exception("b", "x")).unwrap();
        let error = add(&mut list, exception("b", "x")).unwrap_err();
        assert_eq!(error.to_string(), "pod identity exception b/x exists already");
        assert_eq!(list.unwrap().len(), 2);
    }

    #[test]
    fn the_201st_is_refused_before_the_api_server_would() {
        let mut list = Some((0..200).map(|n| exception("a", &format!("x{n}"))).collect());
        let error = add(&mut list, exception("a", "y")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a cluster has at most 200 pod identity exceptions"
        );
    }

    #[test]
    fn a_miss_is_said_with_where_the_name_is() {
        let mut list = Some(vec![exception("a", "x")]);
        let error = remove(&mut list, "b", "x").unwrap_err();
        assert_eq!(error.to_string(), "pod identity exception b/x not found");
        assert_eq!(error.hint().unwrap(), "there is one in a");
        remove(&mut list, "a", "x").unwrap();
        assert_eq!(list.unwrap(), []);
    }
}
