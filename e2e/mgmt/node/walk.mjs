// Walks through what podid's users do in Azure, with the management SDKs, and prints what it saw as one JSON line.
//
// The environment has ARM, AZURE_TENANT_ID, AZURE_SUBSCRIPTION_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (an owner), ISSUER, SUBJECT
// and ASSERTION_FILE (a token of that issuer for that subject). NODE_EXTRA_CA_CERTS has the certificate authority.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { AuthorizationManagementClient } from "@azure/arm-authorization";
import { ComputeManagementClient } from "@azure/arm-compute";
import { ManagedServiceIdentityClient } from "@azure/arm-msi";
import { ResourceManagementClient } from "@azure/arm-resources";
import { ClientSecretCredential, WorkloadIdentityCredential } from "@azure/identity";

const { ARM, AZURE_TENANT_ID: tenant, AZURE_SUBSCRIPTION_ID: subscription, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET } = process.env;
const [group, identity] = ["mgmt", "app-identity"];
const machinesScope = `/subscriptions/${subscription}/resourceGroups/azure-emulator`;

const authority = { authorityHost: ARM, disableInstanceDiscovery: true };
const owner = new ClientSecretCredential(tenant, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, authority);
const client = (Kind, credential = owner) => new Kind(credential, subscription, { endpoint: ARM });

/** What the SDK's error says; null when there is none. */
async function error(call) {
  try {
    await call();
  } catch (failure) {
    const { name, statusCode, code, message, details } = failure;
    return { type: name, status: statusCode, code, message, detail: details?.error?.details?.[0]?.code ?? null };
  }
  return null;
}

async function all(items) {
  const found = [];
  for await (const item of items) found.push(item);
  return found;
}

const names = async (items) => (await all(items)).map((item) => item.name).sort();

const facts = {};
const groups = client(ResourceManagementClient).resourceGroups;
const msi = client(ManagedServiceIdentityClient);
const rights = client(AuthorizationManagementClient);
const machines = client(ComputeManagementClient).virtualMachines;

await groups.createOrUpdate(group, { location: "eastus", tags: { "made-by": "walk" } });
facts.group = (await groups.get(group)).id;

const identities = msi.userAssignedIdentities;
const made = await identities.createOrUpdate(group, identity, { location: "eastus" });
const again = await identities.createOrUpdate(group, identity, { location: "eastus", tags: { again: "yes" } });
const read = await identities.get(group, identity);
const ids = ({ clientId, principalId }) => `${clientId} ${principalId}`;
facts.identity = {
  id: read.id,
  client_id: read.clientId,
  principal_id: read.principalId,
  tenant_id: read.tenantId,
  kept: ids(made) === ids(again) && ids(again) === ids(read),
  listed: await names(identities.listByResourceGroup(group)),
};

const credentials = msi.federatedIdentityCredentials;
const subjects = { one: process.env.SUBJECT, two: "system:serviceaccount:other:app" };
for (const [name, subject] of Object.entries(subjects)) {
  const body = { issuer: process.env.ISSUER, subject, audiences: ["api://AzureADTokenExchange"] };
  await credentials.createOrUpdate(group, identity, name, body);
}
const { issuer, subject, audiences } = await credentials.get(group, identity, "one");
facts.credential = { issuer, subject, audiences };
facts.credentials = await names(credentials.list(group, identity));

const federated = () =>
  new WorkloadIdentityCredential({
    ...authority,
    tenantId: tenant,
    clientId: read.clientId,
    tokenFilePath: process.env.ASSERTION_FILE,
  });

// As the identity itself, by its federated credential.
const ownMachines = client(ComputeManagementClient, federated()).virtualMachines;
facts.before_grant = await error(() => all(ownMachines.list("azure-emulator")));
const [role] = await all(rights.roleDefinitions.list(machinesScope, { filter: "roleName eq 'Reader'" }));
const grant = randomUUID();
const right = { roleDefinitionId: role.id, principalId: read.principalId, principalType: "ServicePrincipal" };
await rights.roleAssignments.create(machinesScope, grant, right);
const granted = await all(rights.roleAssignments.listForScope(machinesScope, { filter: `principalId eq '${read.principalId}'` }));
facts.grants = granted.map((item) => item.name === grant && item.roleDefinitionId.endsWith(role.name));
facts.granted_twice = await error(() => rights.roleAssignments.create(machinesScope, randomUUID(), right));
facts.machines = await names(ownMachines.list("azure-emulator"));

// The first answer is 429 with Retry-After.
const start = performance.now();
facts.throttled = { machines: await names(machines.list(group)), waited_ms: Math.round(performance.now() - start) };
facts.refused = await error(() => identities.createOrUpdate(group, "refused", { location: "eastus" }));

await credentials.delete(group, identity, "one");
facts.credentials_after = await names(credentials.list(group, identity));
try {
  await federated().getToken("https://management.azure.com/.default");
  facts.exchange_after = null;
} catch (failure) {
  facts.exchange_after = { type: failure.name, message: failure.message };
}
await rights.roleAssignments.delete(machinesScope, grant);
await identities.delete(group, identity);
facts.after_delete = await error(() => identities.get(group, identity));
await groups.delete(group);
facts.group_after = (await groups.checkExistence(group)).body;

const { dependencies } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));
const version = (name) => JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), "utf8")).version;
facts.sdk = Object.fromEntries(Object.keys(dependencies).map((name) => [name, version(name)]));
console.log(JSON.stringify(facts));
