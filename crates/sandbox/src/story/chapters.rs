//! The chapters of the story, with the tutorial's commands. Corrections of the tutorial: see its reference page.

use std::time::Duration;

use kube::Api;
use podid_api::{AzureIdentity, AzureIdentityBinding, AzurePodIdentityException};
use podid_rt::clock::Clock;

use super::ask::{Answer, Outcome};
use super::cast::{
    ANSWER, CLUSTER, Cast, GROUP, IDENTITY, IDENTITY_GROUP, NAMESPACE, POD_IDENTITY, SOON, token_url,
};
use super::look::{appears, disappears, follow, list};
use super::pods::{Asking, refused, token_of};
use super::transcript::{Seen, Stopped, Transcript};
use crate::az::{Identity, KUBENET_REFUSAL, KUBENET_WARNING, Network, PodIdentity};
use crate::control::Request;
use crate::failure::Failure;

/// The exception that comes with pod identity. Source: the tutorial.
const ADDON_EXCEPTION: (&str, &str) = ("kube-system", "aks-addon-exception");
/// A namespace of somebody else.
const OTHER: &str = "other-app";
/// The bound within which a deleted binding must have no effect any more.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);
/// How long nothing must get through for us to say that nothing does: longer than the first retransmission of a SYN.
const SILENCE: Duration = Duration::from_millis(1500);
/// How long an answer may take while there is nobody to give it.
const IMPATIENT: Duration = Duration::from_millis(600);

type Told<T> = Result<T, Stopped>;

/// A cluster with pod identity, with both network plugins.
pub(crate) async fn cluster(cast: &Cast, transcript: &mut Transcript) -> Told<()> {
    let az = &cast.az;
    let created = transcript.step(
        "A cluster with pod identity, on Azure CNI",
        &[
            "az group create --name myResourceGroup --location eastus",
            "az aks create -g myResourceGroup -n myAKSCluster --enable-pod-identity --network-plugin azure",
        ],
        async {
            az.group_create(GROUP).await?;
            let made = az.aks_create(GROUP, CLUSTER, Network::Azure).await?;
            let line = format!("node resource group {}", made.node_group);
            let (namespace, name) = ADDON_EXCEPTION;
            appears::<AzurePodIdentityException>(cast, namespace, name).await?;
            Ok(Seen::new(made, line).and(format!("exception {name} is in {namespace}")))
        },
    );
    let _first = cast.cluster.set(created.await?);
    let _checked = transcript
        .step(
            "The same with kubenet is refused without the second flag",
            &["az aks create -g myResourceGroup -n kubenet --enable-pod-identity"],
            async {
                let said = match az.aks_create(GROUP, "kubenet", Network::Kubenet).await {
                    Err(Failure::Said(said)) if said == KUBENET_REFUSAL => said,
                    Err(other) => return Err(other),
                    Ok(_) => return Err(Failure::mismatch("a refusal", "a cluster")),
                };
                // And whoever goes around the extension is refused by ARM.
                match az.aks_put(GROUP, "kubenet", Network::Kubenet).await {
                    Err(error) if error.is(reqwest::StatusCode::BAD_REQUEST) => {
                        Ok(Seen::new((), said).and(format!("ARM says the same: {error}")))
                    }
                    Err(error) => Err(error.into()),
                    Ok(_) => Err(Failure::mismatch("a refusal by ARM", "a cluster")),
                }
            },
        )
        .await;
    let _checked = transcript
        .step(
            "… and accepted with it, with a warning",
            &["az aks create -g myResourceGroup -n kubenet --enable-pod-identity --enable-pod-identity-with-kubenet"],
            async {
                az.aks_create(GROUP, "kubenet", Network::KubenetWithConsent).await?;
                az.aks_delete(GROUP, "kubenet").await?;
                Ok(Seen::new((), format!("warning: {KUBENET_WARNING}")).and("deleted again"))
            },
        )
        .await;
    Ok(())
}

/// The identity, its rights, its pod identity.
pub(crate) async fn identity(cast: &Cast, transcript: &mut Transcript) -> Told<Identity> {
    let az = &cast.az;
    let made = transcript.step(
        "A managed identity",
        &[
            "az group create --name myIdentityResourceGroup --location eastus",
            "az identity create --resource-group ${IDENTITY_RESOURCE_GROUP} --name ${IDENTITY_NAME}",
        ],
        async {
            az.group_create(IDENTITY_GROUP).await?;
            az.identity_create(IDENTITY_GROUP, IDENTITY).await?;
            let shown = az.identity_show(IDENTITY_GROUP, IDENTITY).await?;
            let line = format!("clientId {}", shown.client_id);
            Ok(Seen::new(shown, line))
        },
    );
    let identity = made.await?;
    transcript
        .step(
            "Rights for it where the cluster's scale sets are",
            &["az role assignment create --role \"Managed Identity Operator\" --assignee \"$IDENTITY_CLIENT_ID\" --scope $NODES_RESOURCE_ID"],
            async {
                let scope = az.group_id(&cast.cluster().node_group).await?;
                az.role_assignment_create("Managed Identity Operator", &identity.principal_id, &scope).await?;
                Ok(Seen::new((), format!("on {scope}")))
            },
        )
        .await?;
    transcript
        .step(
            "A pod identity: the identity under a name in a namespace",
            &["az aks pod-identity add --resource-group myResourceGroup --cluster-name myAKSCluster --namespace ${POD_IDENTITY_NAMESPACE}  --name ${POD_IDENTITY_NAME} --identity-resource-id ${IDENTITY_RESOURCE_ID}"],
            async {
                let new = PodIdentity { namespace: NAMESPACE, name: POD_IDENTITY, identity: &identity, selector: None };
                az.pod_identity_add(GROUP, CLUSTER, new).await?;
                let made = appears::<AzureIdentity>(cast, NAMESPACE, POD_IDENTITY).await?;
                let same = made.spec.client_id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(&identity.client_id));
                if !same {
                    return Err(Failure::mismatch(&identity.client_id, format!("{:?}", made.spec.client_id)));
                }
                let bindings = list::<AzureIdentityBinding>(cast, NAMESPACE).await?;
                if bindings.is_empty() {
                    return Err(Failure::mismatch("an AzureIdentityBinding", "none"));
                }
                Ok(Seen::new((), format!("AzureIdentity and AzureIdentityBinding are in {NAMESPACE}")))
            },
        )
        .await?;
    // Strangers ask already now, since their refusal takes the agent's patience.
    let patient =
        |namespace: &'static str, name: &'static str, labels: serde_json::Value, node: &'static str| {
            cast.pods.ask(Asking {
                namespace,
                name,
                labels,
                node: Some(node),
                urls: vec![token_url(None), token_url(Some(&identity.client_id))],
                every: None,
                timeout: ANSWER,
            })
        };
    let strangers = async {
        create_namespace(cast, OTHER).await?;
        patient(
            OTHER,
            "stranger",
            serde_json::json!({ "aadpodidbinding": POD_IDENTITY }),
            "node-1",
        )
        .await?;
        patient(NAMESPACE, "unlabelled", serde_json::json!({}), "node-2").await?;
        Ok(Seen::new(
            (),
            format!(
                "{OTHER}/stranger has the label, {NAMESPACE}/unlabelled has none; what they get comes below"
            ),
        ))
    };
    transcript
        .step(
            "Two pods that shall get nothing begin to ask",
            &["kubectl apply -f strangers.yaml"],
            strangers,
        )
        .await?;
    Ok(identity)
}

/// The tutorial's sample pod and its four lines.
pub(crate) async fn sample(cast: &Cast, transcript: &mut Transcript, identity: &Identity) -> Told<()> {
    let _checked = transcript
        .step(
            "The sample application, and its four lines",
            &[
                "kubectl apply -f demo.yaml --namespace $POD_IDENTITY_NAMESPACE",
                "kubectl logs demo --follow --namespace $POD_IDENTITY_NAMESPACE",
            ],
            async {
                let text = include_str!("demo.yaml")
                    .replace("POD_IDENTITY_NAME", POD_IDENTITY)
                    .replace("SUBSCRIPTION_ID", &cast.az.subscription)
                    .replace("IDENTITY_CLIENT_ID", &identity.client_id)
                    .replace("IDENTITY_RESOURCE_GROUP", IDENTITY_GROUP);
                let pod: serde_json::Value =
                    serde_saphyr::from_str(&text).map_err(|error| Failure::said(error.to_string()))?;
                cast.pods.apply(NAMESPACE, &pod).await?;
                let msi = "msiEndpoint(http://169.254.169.254/metadata/identity/oauth2/token)";
                let expected = [
                    "successfully doARMOperations vm count 0".to_owned(),
                    format!("successfully acquired a token using the MSI, {msi}"),
                    format!(
                        "successfully acquired a token, userAssignedID MSI, {msi} clientID({})",
                        identity.client_id
                    ),
                    "successfully made GET on instance metadata".to_owned(),
                ];
                let lines = follow(cast, NAMESPACE, "demo", &expected).await?;
                Ok(Seen { value: (), lines })
            },
        )
        .await;
    Ok(())
}

/// Two identities under one selector.
pub(crate) async fn several(cast: &Cast, transcript: &mut Transcript) -> Told<()> {
    let az = &cast.az;
    let made = transcript.step(
        "Two identities under the selector foo",
        &[
            "az identity create --resource-group ${IDENTITY_RESOURCE_GROUP} --name ${IDENTITY_NAME_1}   # and _2",
            "az role assignment create --role \"Reader\" --assignee \"$IDENTITY_CLIENT_ID_1\" --scope $NODES_RESOURCE_ID   # and _2",
            "az aks pod-identity add … --name my-pod-identity-1 --identity-resource-id ${IDENTITY_RESOURCE_ID_1} --binding-selector foo   # and -2",
        ],
        async {
            let scope = az.group_id(&cast.cluster().node_group).await?;
            let mut both = Vec::new();
            for number in ["1", "2"] {
                let identity = az.identity_create(IDENTITY_GROUP, &format!("{IDENTITY}_{number}")).await?;
                az.role_assignment_create("Reader", &identity.principal_id, &scope).await?;
                let name = format!("{POD_IDENTITY}-{number}");
                let new = PodIdentity { namespace: NAMESPACE, name: &name, identity: &identity, selector: Some("foo") };
                az.pod_identity_add(GROUP, CLUSTER, new).await?;
                both.push((name, identity));
            }
            let lines = both.iter().map(|(name, identity)| format!("{name}: clientId {}", identity.client_id)).collect();
            Ok(Seen { value: both, lines })
        },
    );
    let both = made.await?;
    let _checked = transcript
        .step(
            "Each of both by its client id, and without one always the first by name",
            &["kubectl run ask --labels aadpodidbinding=foo … client_id=$IDENTITY_CLIENT_ID_1, _2, and none"],
            async {
                let [(_, one), (_, two)] = both.as_slice() else {
                    return Err(Failure::mismatch("two identities", both.len().to_string()));
                };
                let mut said = Vec::new();
                // On both kinds of pod network.
                for node in ["node-1", "node-2"] {
                    let name = format!("ask-foo-{node}");
                    cast.pods
                        .ask(Asking {
                            namespace: NAMESPACE,
                            name: &name,
                            labels: serde_json::json!({ "aadpodidbinding": "foo" }),
                            node: Some(node),
                            urls: vec![
                                token_url(Some(&one.client_id)),
                                token_url(Some(&two.client_id)),
                                token_url(None),
                                token_url(None),
                            ],
                            every: None,
                            timeout: ANSWER,
                        })
                        .await?;
                }
                for node in ["node-1", "node-2"] {
                    let name = format!("ask-foo-{node}");
                    let answers = cast
                        .pods
                        .until((NAMESPACE, &name), "four answers", SOON, |all| all.len() == 4)
                        .await?;
                    for (answer, identity) in answers.iter().zip([one, two, one, one]) {
                        cast.is_token_of(answer, identity)?;
                    }
                    let slowest = answers
                        .iter()
                        .map(|answer| answer.took_ms)
                        .max()
                        .unwrap_or_default();
                    said.push(format!(
                        "{node}: …_1, …_2, …_1, …_1, signatures and claims right, slowest {slowest} ms"
                    ));
                }
                Ok(Seen {
                    value: (),
                    lines: said,
                })
            },
        )
        .await;
    Ok(())
}

/// Pods that get nothing.
pub(crate) async fn strangers(cast: &Cast, transcript: &mut Transcript) -> Told<()> {
    for (title, namespace, name) in [
        ("A pod without the label is refused", NAMESPACE, "unlabelled"),
        (
            "A pod of another namespace with the same label is refused",
            OTHER,
            "stranger",
        ),
    ] {
        let command = format!("kubectl logs {name} --namespace {namespace}");
        let _checked = transcript
            .step(title, &[&command], async {
                let answers = cast
                    .pods
                    .until((namespace, name), "two answers", SOON, |all| all.len() == 2)
                    .await?;
                for answer in &answers {
                    if !refused(answer) {
                        return Err(Failure::mismatch("a refusal", answer.outcome.to_string()));
                    }
                }
                let said = answers
                    .first()
                    .map(|answer| answer.outcome.to_string())
                    .unwrap_or_default();
                Ok(Seen::new((), said))
            })
            .await;
    }
    Ok(())
}

/// An exception comes, changes and goes.
pub(crate) async fn exceptions(cast: &Cast, transcript: &mut Transcript) -> Told<()> {
    let az = &cast.az;
    let place = (NAMESPACE, "my-exception");
    // Nothing in the cluster is bound to the node's own identity: only the real metadata service gives its token.
    let kubelet = cast.cluster().kubelet_client_id.clone();
    let url = token_url(Some(&kubelet));
    let sees = |answer: &Answer| token_of(answer).is_some_and(|client| client.eq_ignore_ascii_case(&kubelet));
    let added = transcript.step(
        "An exception lets its pod through to the real metadata service",
        &["az aks pod-identity exception add -g myResourceGroup --cluster-name myAKSCluster -n my-exception --namespace my-app --pod-labels app=infra"],
        async {
            cast.keep_asking((NAMESPACE, "infra"), &[("app", "infra")], "node-1", (url.clone(), ANSWER)).await?;
            cast.keep_asking((NAMESPACE, "tools"), &[("app", "tools")], "node-2", (url.clone(), ANSWER)).await?;
            let before = cast.pods.until((NAMESPACE, "infra"), "a refusal", SOON, |all| !all.is_empty()).await?;
            if let Some(early) = before.iter().find(|answer| !refused(answer)) {
                return Err(Failure::mismatch("a refusal before there is an exception", early.outcome.to_string()));
            }
            az.exception_add(GROUP, CLUSTER, place, &[("app", "infra")]).await?;
            let answers = cast
                .pods
                .until((NAMESPACE, "infra"), "the node's own token", SOON, |all| all.iter().any(sees))
                .await?;
            let said = answers.iter().find(|answer| sees(answer)).map(|answer| answer.outcome.to_string());
            Ok(Seen::new((), format!("infra: {}, the kubelet's", said.unwrap_or_default())))
        },
    );
    added.await?;
    let _checked = transcript
        .step(
            "The exception updated: another pod passes, the first no longer",
            &["az aks pod-identity exception update -g myResourceGroup --cluster-name myAKSCluster -n my-exception --namespace my-app --pod-labels app=tools"],
            async {
                az.exception_update(GROUP, CLUSTER, place, &[("app", "tools")]).await?;
                cast.pods
                    .until((NAMESPACE, "tools"), "the node's own token", SOON, |all| all.last().is_some_and(sees))
                    .await?;
                let answers = cast
                    .pods
                    .until((NAMESPACE, "infra"), "a refusal", SOON, |all| all.last().is_some_and(refused))
                    .await?;
                let said = answers.last().map(|answer| answer.outcome.to_string()).unwrap_or_default();
                Ok(Seen::new((), "tools: a token of the kubelet's identity").and(format!("infra: {said}")))
            },
        )
        .await;
    let _checked = transcript
        .step(
            "The exception deleted: nobody passes",
            &["az aks pod-identity exception delete -g myResourceGroup --cluster-name myAKSCluster -n my-exception --namespace my-app"],
            async {
                az.exception_delete(GROUP, CLUSTER, NAMESPACE, "my-exception").await?;
                let answers = cast
                    .pods
                    .until((NAMESPACE, "tools"), "a refusal", SOON, |all| all.last().is_some_and(refused))
                    .await?;
                let said = answers.last().map(|answer| answer.outcome.to_string()).unwrap_or_default();
                cast.pods.delete(NAMESPACE, "infra", SOON).await?;
                cast.pods.delete(NAMESPACE, "tools", SOON).await?;
                Ok(Seen::new((), format!("tools: {said}")))
            },
        )
        .await;
    Ok(())
}

/// The agents die without warning, and come back.
pub(crate) async fn agent_killed(cast: &Cast, transcript: &mut Transcript, identity: &Identity) -> Told<()> {
    let label = [("aadpodidbinding", POD_IDENTITY)];
    let names = [("steady-1", "node-1"), ("steady-2", "node-2")];
    let gets = |answer: &Answer| {
        token_of(answer).is_some_and(|client| client.eq_ignore_ascii_case(&identity.client_id))
    };
    let killed = transcript.step(
        "The agents killed: no pod reaches the metadata service",
        &["kill -9 $(pidof podid-nmi)"],
        async {
            for (name, node) in names {
                cast.keep_asking((NAMESPACE, name), &label, node, (token_url(None), IMPATIENT)).await?;
            }
            for (name, _) in names {
                cast.pods.until((NAMESPACE, name), "tokens", SOON, |all| all.last().is_some_and(gets)).await?;
            }
            cast.control(Request::HoldAgents).await?;
            // What was under way at that moment has been answered or cut.
            let since = cast.last_request().await?;
            let moment = now_ms();
            tokio::time::sleep(SILENCE).await;
            let mut unanswered = 0;
            for (name, _) in names {
                let answers = cast.pods.answers(NAMESPACE, name).await?;
                let later: Vec<_> = answers.iter().filter(|answer| answer.asked_at_ms > moment).collect();
                if let Some(leak) = later.iter().find(|answer| !matches!(answer.outcome, Outcome::NoAnswer { .. })) {
                    return Err(Failure::mismatch("no answer", format!("{name}: {}", leak.outcome)));
                }
                if later.is_empty() {
                    return Err(Failure::mismatch("a request without answer", format!("{name} has not asked")));
                }
                unanswered += later.len();
            }
            let reached = cast.az.imds_requests(since).await?;
            if let Some((_, source, path)) = reached.first() {
                return Err(Failure::mismatch("no request at the metadata service", format!("{path} from {source}")));
            }
            Ok(Seen::new((), format!("{unanswered} requests of two pods without an answer, none arrived at the metadata service")))
        },
    );
    let killed = killed.await;
    let back = transcript.step("The agents back: tokens again", &["podid-nmi"], async {
        cast.control(Request::ReleaseAgents).await?;
        let moment = now_ms();
        let mut lines = Vec::new();
        for (name, node) in names {
            let answers = cast
                .pods
                .until((NAMESPACE, name), "tokens again", SOON, |all| {
                    all.last()
                        .is_some_and(|answer| answer.asked_at_ms > moment && gets(answer))
                })
                .await?;
            let first = answers
                .iter()
                .find(|answer| answer.asked_at_ms > moment && gets(answer));
            let after = first
                .map(|answer| answer.asked_at_ms.saturating_sub(moment))
                .unwrap_or_default();
            lines.push(format!(
                "{node}: asked {after} ms after the agent was ready, answered with a token"
            ));
        }
        cast.pods.delete(NAMESPACE, "steady-2", SOON).await?;
        Ok(Seen { value: (), lines })
    });
    let back = back.await;
    killed.and(back)
}

/// The binding goes; its tokens go with it.
pub(crate) async fn unbound(cast: &Cast, transcript: &mut Transcript) -> Told<()> {
    let _checked = transcript
        .step(
            "The binding deleted: refused within a second, though a token was just given",
            &["az aks pod-identity delete --name ${POD_IDENTITY_NAME} --namespace ${POD_IDENTITY_NAMESPACE} --resource-group myResourceGroup --cluster-name myAKSCluster"],
            async {
                let before = cast.pods.answers(NAMESPACE, "steady-1").await?;
                if before.last().and_then(token_of).is_none() {
                    return Err(Failure::mismatch("a pod that gets tokens", "one that does not"));
                }
                cast.az.pod_identity_delete(GROUP, CLUSTER, NAMESPACE, POD_IDENTITY).await?;
                disappears::<AzureIdentityBinding>(cast, NAMESPACE, POD_IDENTITY).await?;
                let gone = now_ms();
                let bound = gone.saturating_add(millis(REVOKED_WITHIN));
                let answers = cast
                    .pods
                    .until((NAMESPACE, "steady-1"), "refusals", SOON, |all| {
                        all.last().is_some_and(|answer| refused(answer) && answer.asked_at_ms > bound)
                    })
                    .await?;
                let late = answers.iter().find(|answer| answer.asked_at_ms > bound && !refused(answer));
                if let Some(late) = late {
                    return Err(Failure::mismatch("only refusals after a second", late.outcome.to_string()));
                }
                let last = answers.iter().rev().find(|answer| token_of(answer).is_some());
                let after = last.map_or(0, |answer| answer.asked_at_ms.saturating_sub(gone));
                let said = answers.last().map(|answer| answer.outcome.to_string()).unwrap_or_default();
                cast.pods.delete(NAMESPACE, "steady-1", SOON).await?;
                Ok(Seen::new((), format!("the last token was asked for {after} ms after the binding was gone; then {said}")))
            },
        )
        .await;
    Ok(())
}

/// The tutorial's clean-up.
pub(crate) async fn clean_up(cast: &Cast, transcript: &mut Transcript) -> Told<()> {
    let az = &cast.az;
    transcript
        .step(
            "Clean up",
            &[
                "kubectl delete pod demo --namespace $POD_IDENTITY_NAMESPACE",
                "az aks pod-identity delete … ; az identity delete -g ${IDENTITY_RESOURCE_GROUP} -n ${IDENTITY_NAME}",
                "az aks delete … ; az group delete …",
            ],
            async {
                for namespace in [NAMESPACE, OTHER] {
                    for name in cast.pods.names(namespace).await? {
                        cast.pods.delete(namespace, &name, SOON).await?;
                    }
                }
                for number in ["1", "2"] {
                    az.pod_identity_delete(GROUP, CLUSTER, NAMESPACE, &format!("{POD_IDENTITY}-{number}")).await?;
                    disappears::<AzureIdentity>(cast, NAMESPACE, &format!("{POD_IDENTITY}-{number}")).await?;
                    az.identity_delete(IDENTITY_GROUP, &format!("{IDENTITY}_{number}")).await?;
                }
                az.identity_delete(IDENTITY_GROUP, IDENTITY).await?;
                az.aks_delete(GROUP, CLUSTER).await?;
                az.group_delete(GROUP).await?;
                az.group_delete(IDENTITY_GROUP).await?;
                let (namespace, name) = ADDON_EXCEPTION;
                disappears::<AzurePodIdentityException>(cast, namespace, name).await?;
                let left = [
                    list::<AzureIdentity>(cast, "").await?,
                    list::<AzureIdentityBinding>(cast, "").await?,
                    list::<AzurePodIdentityException>(cast, "").await?,
                ]
                .concat();
                if left.is_empty() {
                    Ok(Seen::new((), "no identity, binding or exception is left in the cluster"))
                } else {
                    Err(Failure::mismatch("nothing of ours in the cluster", left.join(", ")))
                }
            },
        )
        .await
}

async fn create_namespace(cast: &Cast, name: &str) -> Result<(), Failure> {
    let api = Api::<k8s_openapi::api::core::v1::Namespace>::all(cast.pods.client.clone());
    let mut namespace = k8s_openapi::api::core::v1::Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    api.create(&kube::api::PostParams::default(), &namespace).await?;
    Ok(())
}

fn now_ms() -> u64 {
    millis(Clock::system().since_epoch())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
