// Walks through what podid's users do in Azure, with the management SDKs, and prints what it saw as one JSON line.
//
// The environment has ARM, AZURE_TENANT_ID, AZURE_SUBSCRIPTION_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (an owner), ISSUER,
// SUBJECT and ASSERTION_FILE (a token of that issuer for that subject). SSL_CERT_FILE has the certificate authority.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerservice/armcontainerservice/v6"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/google/uuid"
)

const (
	group    = "mgmt"
	identity = "app-identity"
	machines = "azure-emulator"
)

var (
	ctx          = context.Background()
	base         = os.Getenv("ARM")
	tenant       = os.Getenv("AZURE_TENANT_ID")
	subscription = os.Getenv("AZURE_SUBSCRIPTION_ID")
	emulated     = cloud.Configuration{
		ActiveDirectoryAuthorityHost: base,
		Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Audience: "https://management.azure.com", Endpoint: base},
		},
	}
	options = &arm.ClientOptions{ClientOptions: policy.ClientOptions{Cloud: emulated}}
	// How often a long-running operation is asked about, where the answer does not say.
	often = &runtime.PollUntilDoneOptions{Frequency: time.Second}
)

type facts map[string]any

func main() {
	found := facts{}
	if err := walk(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func walk(found facts) error {
	found["sdk"] = versions()
	owner, err := azidentity.NewClientSecretCredential(tenant, os.Getenv("AZURE_CLIENT_ID"), os.Getenv("AZURE_CLIENT_SECRET"),
		&azidentity.ClientSecretCredentialOptions{
			ClientOptions:            policy.ClientOptions{Cloud: emulated},
			DisableInstanceDiscovery: true,
		})
	if err != nil {
		return err
	}
	groups, err := armresources.NewResourceGroupsClient(subscription, owner, options)
	if err != nil {
		return err
	}
	if _, err := groups.CreateOrUpdate(ctx, group, armresources.ResourceGroup{Location: to.Ptr("eastus")}, nil); err != nil {
		return err
	}
	made, err := groups.Get(ctx, group, nil)
	if err != nil {
		return err
	}
	found["group"] = *made.ID
	read, err := identities(owner, found)
	if err != nil {
		return err
	}
	if err := credentials(owner, found); err != nil {
		return err
	}
	grant, err := rights(owner, read, found)
	if err != nil {
		return err
	}
	if err := trouble(owner, found); err != nil {
		return err
	}
	if err := cluster(owner, read, found); err != nil {
		return err
	}
	return remove(owner, groups, read, grant, found)
}

func identities(owner azcore.TokenCredential, found facts) (*armmsi.Identity, error) {
	client, err := armmsi.NewUserAssignedIdentitiesClient(subscription, owner, options)
	if err != nil {
		return nil, err
	}
	made, err := client.CreateOrUpdate(ctx, group, identity, armmsi.Identity{Location: to.Ptr("eastus")}, nil)
	if err != nil {
		return nil, err
	}
	again, err := client.CreateOrUpdate(ctx, group, identity, armmsi.Identity{
		Location: to.Ptr("eastus"),
		Tags:     map[string]*string{"again": to.Ptr("yes")},
	}, nil)
	if err != nil {
		return nil, err
	}
	read, err := client.Get(ctx, group, identity, nil)
	if err != nil {
		return nil, err
	}
	var listed []string
	for pager := client.NewListByResourceGroupPager(group, nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Value {
			listed = append(listed, *item.Name)
		}
	}
	kept := *made.Properties.ClientID == *again.Properties.ClientID && *again.Properties.ClientID == *read.Properties.ClientID &&
		*made.Properties.PrincipalID == *again.Properties.PrincipalID && *again.Properties.PrincipalID == *read.Properties.PrincipalID
	found["identity"] = facts{
		"id": *read.ID, "client_id": *read.Properties.ClientID, "principal_id": *read.Properties.PrincipalID,
		"tenant_id": *read.Properties.TenantID, "kept": kept, "listed": listed,
	}
	return &read.Identity, nil
}

func credentials(owner azcore.TokenCredential, found facts) error {
	client, err := armmsi.NewFederatedIdentityCredentialsClient(subscription, owner, options)
	if err != nil {
		return err
	}
	for name, subject := range map[string]string{"one": os.Getenv("SUBJECT"), "two": "system:serviceaccount:other:app"} {
		body := armmsi.FederatedIdentityCredential{Properties: &armmsi.FederatedIdentityCredentialProperties{
			Issuer:    to.Ptr(os.Getenv("ISSUER")),
			Subject:   to.Ptr(subject),
			Audiences: []*string{to.Ptr("api://AzureADTokenExchange")},
		}}
		if _, err := client.CreateOrUpdate(ctx, group, identity, name, body, nil); err != nil {
			return err
		}
	}
	one, err := client.Get(ctx, group, identity, "one", nil)
	if err != nil {
		return err
	}
	found["credential"] = facts{
		"issuer": *one.Properties.Issuer, "subject": *one.Properties.Subject, "audiences": one.Properties.Audiences,
	}
	found["credentials"], err = listCredentials(client)
	return err
}

func listCredentials(client *armmsi.FederatedIdentityCredentialsClient) ([]string, error) {
	names := []string{}
	for pager := client.NewListPager(group, identity, nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Value {
			names = append(names, *item.Name)
		}
	}
	sort.Strings(names)
	return names, nil
}

// A credential of the identity itself, by its federated credential.
func federated(read *armmsi.Identity) (azcore.TokenCredential, error) {
	return azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions:            policy.ClientOptions{Cloud: emulated},
		ClientID:                 *read.Properties.ClientID,
		TenantID:                 tenant,
		TokenFilePath:            os.Getenv("ASSERTION_FILE"),
		DisableInstanceDiscovery: true,
	})
}

func listMachines(credential azcore.TokenCredential, of string) ([]string, error) {
	client, err := armcompute.NewVirtualMachinesClient(subscription, credential, options)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for pager := client.NewListPager(of, nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Value {
			names = append(names, *item.Name)
		}
	}
	return names, nil
}

func rights(owner azcore.TokenCredential, read *armmsi.Identity, found facts) (string, error) {
	own, err := federated(read)
	if err != nil {
		return "", err
	}
	_, err = listMachines(own, machines)
	found["before_grant"] = refusal(err)
	scope := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s", subscription, machines)
	name := uuid.NewString()
	role, err := grantRole(owner, scope, "Reader", *read.Properties.PrincipalID, name)
	if err != nil {
		return "", err
	}
	client, err := armauthorization.NewRoleAssignmentsClient(subscription, owner, options)
	if err != nil {
		return "", err
	}
	// This filter is sent as it is: one with spaces is a malformed request, to Azure too.
	filter := fmt.Sprintf("principalId+eq+'%s'", *read.Properties.PrincipalID)
	grants := []bool{}
	for pager := client.NewListForScopePager(scope, &armauthorization.RoleAssignmentsClientListForScopeOptions{Filter: &filter}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return "", err
		}
		for _, item := range page.Value {
			grants = append(grants, *item.Name == name && strings.EqualFold(*item.Properties.RoleDefinitionID, role))
		}
	}
	found["grants"] = grants
	_, err = grantRole(owner, scope, "Reader", *read.Properties.PrincipalID, uuid.NewString())
	found["granted_twice"] = refusal(err)
	found["machines"], err = listMachines(own, machines)
	return name, err
}

// Grants a role by its name; gives the id of its definition.
func grantRole(owner azcore.TokenCredential, scope, role, principal, name string) (string, error) {
	definitions, err := armauthorization.NewRoleDefinitionsClient(owner, options)
	if err != nil {
		return "", err
	}
	filter := fmt.Sprintf("roleName eq '%s'", role)
	page, err := definitions.NewListPager(scope, &armauthorization.RoleDefinitionsClientListOptions{Filter: &filter}).NextPage(ctx)
	if err != nil {
		return "", err
	}
	if len(page.Value) != 1 {
		return "", fmt.Errorf("there are %d roles `%s`", len(page.Value), role)
	}
	client, err := armauthorization.NewRoleAssignmentsClient(subscription, owner, options)
	if err != nil {
		return "", err
	}
	_, err = client.Create(ctx, scope, name, armauthorization.RoleAssignmentCreateParameters{
		Properties: &armauthorization.RoleAssignmentProperties{
			RoleDefinitionID: page.Value[0].ID,
			PrincipalID:      &principal,
			PrincipalType:    to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
		},
	}, nil)
	return *page.Value[0].ID, err
}

func trouble(owner azcore.TokenCredential, found facts) error {
	// The first answer is 429 with Retry-After.
	start := time.Now()
	names, err := listMachines(owner, group)
	if err != nil {
		return err
	}
	found["throttled"] = facts{"machines": names, "waited_ms": time.Since(start).Milliseconds()}
	client, err := armmsi.NewUserAssignedIdentitiesClient(subscription, owner, options)
	if err != nil {
		return err
	}
	_, err = client.CreateOrUpdate(ctx, group, "refused", armmsi.Identity{Location: to.Ptr("eastus")}, nil)
	found["refused"] = refusal(err)
	return nil
}

func cluster(owner azcore.TokenCredential, read *armmsi.Identity, found facts) error {
	client, err := armcontainerservice.NewManagedClustersClient(subscription, owner, options)
	if err != nil {
		return err
	}
	put := func(body armcontainerservice.ManagedCluster) (armcontainerservice.ManagedCluster, error) {
		poller, err := client.BeginCreateOrUpdate(ctx, group, "cluster", body, nil)
		if err != nil {
			return armcontainerservice.ManagedCluster{}, err
		}
		done, err := poller.PollUntilDone(ctx, often)
		return done.ManagedCluster, err
	}
	made, err := put(armcontainerservice.ManagedCluster{
		Location: to.Ptr("eastus"),
		Identity: &armcontainerservice.ManagedClusterIdentity{Type: to.Ptr(armcontainerservice.ResourceIdentityTypeSystemAssigned)},
		Properties: &armcontainerservice.ManagedClusterProperties{
			DNSPrefix: to.Ptr("walk"),
			AgentPoolProfiles: []*armcontainerservice.ManagedClusterAgentPoolProfile{{
				Name: to.Ptr("nodepool1"), Count: to.Ptr[int32](1), VMSize: to.Ptr("Standard_B2s"),
				Mode: to.Ptr(armcontainerservice.AgentPoolModeSystem),
			}},
			NetworkProfile:     &armcontainerservice.NetworkProfile{NetworkPlugin: to.Ptr(armcontainerservice.NetworkPluginAzure)},
			PodIdentityProfile: &armcontainerservice.ManagedClusterPodIdentityProfile{Enabled: to.Ptr(true)},
		},
	})
	if err != nil {
		return err
	}
	state := *made.Properties.ProvisioningState
	if _, err := grantRole(owner, *read.ID, "Managed Identity Operator", *made.Identity.PrincipalID, uuid.NewString()); err != nil {
		return err
	}
	made.Properties.PodIdentityProfile.UserAssignedIdentities = []*armcontainerservice.ManagedClusterPodIdentity{{
		Name: to.Ptr("app"), Namespace: to.Ptr("my-app"),
		Identity: &armcontainerservice.UserAssignedIdentity{
			ResourceID: read.ID, ClientID: read.Properties.ClientID, ObjectID: read.Properties.PrincipalID,
		},
	}}
	made, err = put(made)
	if err != nil {
		return err
	}
	pods := []string{}
	for _, item := range made.Properties.PodIdentityProfile.UserAssignedIdentities {
		pods = append(pods, fmt.Sprintf("%s/%s %s", *item.Namespace, *item.Name, *item.ProvisioningState))
	}
	found["cluster"] = facts{"state": state, "node_group": *made.Properties.NodeResourceGroup, "pod_identities": pods}
	poller, err := client.BeginDelete(ctx, group, "cluster", nil)
	if err != nil {
		return err
	}
	_, err = poller.PollUntilDone(ctx, often)
	return err
}

func remove(owner azcore.TokenCredential, groups *armresources.ResourceGroupsClient, read *armmsi.Identity, grant string, found facts) error {
	client, err := armmsi.NewFederatedIdentityCredentialsClient(subscription, owner, options)
	if err != nil {
		return err
	}
	if _, err := client.Delete(ctx, group, identity, "one", nil); err != nil {
		return err
	}
	if found["credentials_after"], err = listCredentials(client); err != nil {
		return err
	}
	own, err := federated(read)
	if err != nil {
		return err
	}
	_, err = own.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://management.azure.com/.default"}})
	var failed *azidentity.AuthenticationFailedError
	if errors.As(err, &failed) {
		found["exchange_after"] = facts{"type": "AuthenticationFailedError", "message": failed.Error()}
	}
	rights, err := armauthorization.NewRoleAssignmentsClient(subscription, owner, options)
	if err != nil {
		return err
	}
	scope := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s", subscription, machines)
	if _, err := rights.Delete(ctx, scope, grant, nil); err != nil {
		return err
	}
	identities, err := armmsi.NewUserAssignedIdentitiesClient(subscription, owner, options)
	if err != nil {
		return err
	}
	if _, err := identities.Delete(ctx, group, identity, nil); err != nil {
		return err
	}
	_, err = identities.Get(ctx, group, identity, nil)
	found["after_delete"] = refusal(err)
	poller, err := groups.BeginDelete(ctx, group, nil)
	if err != nil {
		return err
	}
	if _, err := poller.PollUntilDone(ctx, often); err != nil {
		return err
	}
	there, err := groups.CheckExistence(ctx, group, nil)
	found["group_after"] = there.Success
	return err
}

// What the SDK's own error says; none when it is no such error. azcore keeps message and details as text.
func refusal(err error) any {
	var failed *azcore.ResponseError
	if !errors.As(err, &failed) {
		return nil
	}
	return facts{"type": "ResponseError", "status": failed.StatusCode, "code": failed.ErrorCode, "message": failed.Error()}
}

func versions() map[string]string {
	found := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return found
	}
	for _, module := range info.Deps {
		if name, ours := strings.CutPrefix(module.Path, "github.com/Azure/azure-sdk-for-go/sdk/"); ours && name != "internal" {
			found[strings.TrimPrefix(name, "resourcemanager/")] = strings.TrimPrefix(module.Version, "v")
		}
	}
	return found
}
