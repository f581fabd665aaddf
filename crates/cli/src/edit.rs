//! Edits of the one PodIdentityProfile: pure changes of its spec, and the loop that writes them.
//!
//! read ─▶ change ─▶ replace (with the version that was read) ─▶ done; changed meanwhile ─▶ read …

use kube::Api;
use kube::api::PostParams;
use podid_api::names::PROFILE_NAME;
use podid_api::profile::{PodIdentity, PodIdentityException, PodIdentityProfile, PodIdentityProfileSpec};

use crate::error::CliError;

/// How often a change is tried again when others change the profile at the same time.
const TRIES: u32 = 8;
/// Who changed the profile, for its managed fields.
const FIELD_MANAGER: &str = "podid";

pub(crate) const IDENTITY: &str = "pod identity";
pub(crate) const EXCEPTION: &str = "pod identity exception";

/// Something in a list of the profile, with a namespace and a name.
pub(crate) trait Entry {
    /// What people call it.
    const WHAT: &'static str;
    fn namespace(&self) -> &str;
    fn name(&self) -> &str;
}

impl Entry for PodIdentity {
    const WHAT: &'static str = IDENTITY;
    fn namespace(&self) -> &str {
        &self.namespace
    }
    fn name(&self) -> &str {
        &self.name
    }
}

impl Entry for PodIdentityException {
    const WHAT: &'static str = EXCEPTION;
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
            what: E::WHAT,
            namespace: entry.namespace().to_owned(),
            name: entry.name().to_owned(),
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
            what: E::WHAT,
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

/// Reads the profile, lets `change` edit its spec, writes it; again when somebody else was faster.
pub(crate) async fn change(
    api: &Api<PodIdentityProfile>,
    mut change: impl FnMut(&mut PodIdentityProfileSpec) -> Result<(), CliError> + Send,
) -> Result<(), CliError> {
    write(api, |spec| {
        let spec = spec.filter(|spec| spec.enabled).ok_or(CliError::NotEnabled)?;
        change(spec)?;
        Ok(true)
    })
    .await
    .map(drop)
}

/// Switches pod identity on, making the profile if there is none; whether it was off.
pub(crate) async fn enable(
    api: &Api<PodIdentityProfile>,
    network_plugin: Option<&str>,
    with_kubenet: bool,
) -> Result<bool, CliError> {
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
    write(api, edit).await?;
    Ok(was_off)
}

/// Switches pod identity off: as `az aks update --disable-pod-identity`, this drops identities, exceptions and the
/// consent to kubenet. Whether it was on.
pub(crate) async fn disable(api: &Api<PodIdentityProfile>) -> Result<bool, CliError> {
    let mut was_on = false;
    let edit = |spec: Option<&mut PodIdentityProfileSpec>| {
        let Some(spec) = spec else { return Ok(false) };
        was_on = spec.enabled;
        let before = std::mem::take(spec);
        spec.network_plugin.clone_from(&before.network_plugin);
        Ok(*spec != before)
    };
    write(api, edit).await?;
    Ok(was_on)
}

/// Reads, edits and writes until nobody is faster. `edit` says whether there is something to write; it is asked with none
/// when there is no profile, and then again with an empty one if it wants one made.
async fn write(
    api: &Api<PodIdentityProfile>,
    mut edit: impl FnMut(Option<&mut PodIdentityProfileSpec>) -> Result<bool, CliError> + Send,
) -> Result<(), CliError> {
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    for _try in 0..TRIES {
        let written = if let Some(mut profile) = read(api).await? {
            if !edit(Some(&mut profile.spec))? {
                return Ok(());
            }
            api.replace(PROFILE_NAME, &params, &profile).await
        } else {
            let mut profile = PodIdentityProfile::new(PROFILE_NAME, PodIdentityProfileSpec::default());
            if !(edit(None)? && edit(Some(&mut profile.spec))?) {
                return Ok(());
            }
            api.create(&params, &profile).await
        };
        match written {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(CliError::from_kube("change the PodIdentityProfile", error)),
        }
    }
    Err(CliError::Contended { tries: TRIES })
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
    fn a_miss_is_said_with_where_the_name_is() {
        let mut list = Some(vec![exception("a", "x")]);
        let error = remove(&mut list, "b", "x").unwrap_err();
        assert_eq!(error.to_string(), "pod identity exception b/x not found");
        assert_eq!(error.hint().unwrap(), "there is one in a");
        remove(&mut list, "a", "x").unwrap();
        assert_eq!(list.unwrap(), []);
    }
}
