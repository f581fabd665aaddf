//! Lists: a consistent page of objects, plain, as a table, or as metadata.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::State;
use crate::json::{self as fields, text};
use crate::kinds;
use crate::request::{Form, Params};
use crate::resource::Resource;
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::Object;
use crate::table::{self, Include};

/// How objects are shown to one client.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) resource: Arc<Resource>,
    pub(crate) form: Form,
    pub(crate) include: Include,
}

impl View {
    /// An object's text in this view; `now` is for ages.
    pub(crate) fn render(&self, object: &Object, now: Timestamp, first: bool) -> Bytes {
        let served = kinds::to_served(&self.resource, object);
        match (self.form, &served) {
            (Form::Plain, None) => object.text(),
            (Form::Plain, Some(served)) => fields::bytes(served),
            (Form::Partial, _) => fields::bytes(&table::partial(served.as_ref().unwrap_or(object))),
            (Form::Table, _) => {
                let object = served.as_ref().unwrap_or(object);
                let row = table::row(&self.resource, object, now, self.include);
                let metadata = json!({ "resourceVersion": text(object, &["metadata", "resourceVersion"]) });
                fields::bytes(&table::table(&self.resource, &metadata, vec![row], first))
            }
        }
    }
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    /// `metadata` of the list.
    pub(crate) metadata: Value,
}

impl State {
    /// The page that the parameters ask for.
    pub(crate) fn page(
        &self,
        resource: &Resource,
        namespace: &str,
        params: &Params,
    ) -> Result<Page, ApiError> {
        let selector = Selector::parse(
            params.text("labelSelector"),
            params.text("fieldSelector"),
            &resource.fields,
        )?;
        let limit = params
            .number("limit")?
            .filter(|limit| *limit > 0)
            .and_then(|limit| usize::try_from(limit).ok());
        let current = self.store.version();
        let token = params.text("continue");
        let (version, after) = if token.is_empty() {
            self.check_version(params)?;
            (current, None)
        } else {
            let (version, namespace, name) = read_token(token)?;
            if !self.store.remembers(version) {
                return Err(ApiError::expired(
                    "The provided continue parameter is too old to display a consistent list result. You must start a new \
                     list without the continue parameter.",
                ));
            }
            (version, Some((namespace, name)))
        };
        let after = after
            .as_ref()
            .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let key = resource.store_key();
        let mut objects = Vec::new();
        let mut last = None;
        let mut more = 0_u64;
        for (key, object) in self.store.list(&key, namespace, after) {
            if !matches(resource, &selector, object) {
                continue;
            }
            if limit.is_some_and(|limit| objects.len() >= limit) {
                more += 1;
                continue;
            }
            last = Some((key.namespace.clone(), key.name.clone()));
            objects.push(Arc::clone(object));
        }
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if let Some((namespace, name)) = last.filter(|_| more > 0) {
            fields::set(
                &mut metadata,
                &["continue"],
                write_token(version, &namespace, &name),
            );
            if selector.is_empty() {
                fields::set(&mut metadata, &["remainingItemCount"], more);
            }
        }
        Ok(Page { objects, metadata })
    }

    /// A list may ask for a version at least as new as one, or exactly one; only the newest is at hand.
    fn check_version(&self, params: &Params) -> Result<(), ApiError> {
        let current = self.store.version();
        let Some(asked) = params.number("resourceVersion")?.filter(|version| *version > 0) else {
            return Ok(());
        };
        if asked > current {
            return Err(ApiError::too_large_version(asked, current));
        }
        if params.text("resourceVersionMatch") == "Exact" && asked != current {
            return Err(ApiError::expired(format!(
                "The resourceVersion for the provided list is too old: {asked}"
            )));
        }
        Ok(())
    }
}

/// Whether an object, as this resource serves it, is selected.
pub(crate) fn matches(resource: &Resource, selector: &Selector, object: &Value) -> bool {
    if selector.is_empty() {
        return true;
    }
    match kinds::to_served(resource, object) {
        Some(served) => selector.matches(&served),
        None => selector.matches(object),
    }
}

/// The whole list's text.
pub(crate) fn render(view: &View, page: &Page, now: Timestamp) -> Bytes {
    let resource = &view.resource;
    match view.form {
        Form::Plain => {
            let head = json!({
                "kind": resource.list_kind,
                "apiVersion": resource.api_version(),
                "metadata": page.metadata,
            });
            // In lists of built-in kinds, items do not repeat their types.
            let types = format!(
                "{{\"apiVersion\":{},\"kind\":{},",
                json!(resource.api_version()),
                json!(resource.kind)
            );
            let mut text = BytesMut::from(head.to_string().trim_end_matches('}').as_bytes());
            // What was trimmed too much: the end of metadata.
            text.put_slice(b"},\"items\":[");
            for (index, object) in page.objects.iter().enumerate() {
                if index > 0 {
                    text.put_u8(b',');
                }
                let item = view.render(object, now, false);
                match item
                    .strip_prefix(types.as_bytes())
                    .filter(|_| !resource.is_custom())
                {
                    Some(rest) => {
                        text.put_u8(b'{');
                        text.put_slice(rest);
                    }
                    None => text.put_slice(&item),
                }
            }
            text.put_slice(b"]}");
            text.freeze()
        }
        Form::Partial => {
            let items: Vec<Value> = page.objects.iter().map(|object| table::partial(object)).collect();
            fields::bytes(&json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata,
                "items": items,
            }))
        }
        Form::Table => {
            let rows = page
                .objects
                .iter()
                .map(|object| {
                    let served = kinds::to_served(resource, object);
                    table::row(resource, served.as_ref().unwrap_or(object), now, view.include)
                })
                .collect();
            fields::bytes(&table::table(resource, &page.metadata, rows, true))
        }
    }
}

fn write_token(version: u64, namespace: &str, name: &str) -> String {
    URL_SAFE_NO_PAD.encode(json!([version, namespace, name]).to_string())
}

fn read_token(token: &str) -> Result<(u64, String, String), ApiError> {
    URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiError::bad_request("continue key is not valid"))
}
