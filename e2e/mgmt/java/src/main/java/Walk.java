import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.core.management.AzureEnvironment;
import com.azure.core.management.Region;
import com.azure.core.management.exception.ManagementException;
import com.azure.core.management.profile.AzureProfile;
import com.azure.core.util.BinaryData;
import com.azure.identity.ClientSecretCredentialBuilder;
import com.azure.identity.WorkloadIdentityCredentialBuilder;
import com.azure.resourcemanager.authorization.AuthorizationManager;
import com.azure.resourcemanager.authorization.models.BuiltInRole;
import com.azure.resourcemanager.authorization.models.RoleDefinition;
import com.azure.resourcemanager.compute.ComputeManager;
import com.azure.resourcemanager.msi.MsiManager;
import com.azure.resourcemanager.msi.fluent.FederatedIdentityCredentialsClient;
import com.azure.resourcemanager.msi.fluent.models.FederatedIdentityCredentialInner;
import com.azure.resourcemanager.msi.models.Identity;
import com.azure.resourcemanager.resources.ResourceManager;
import com.microsoft.aad.msal4j.MsalServiceException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.UUID;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;

/**
 * Walks through what podid's users do in Azure, with the management SDKs, and prints what it saw as one JSON line.
 *
 * <p>The environment has ARM, AZURE_TENANT_ID, AZURE_SUBSCRIPTION_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (an owner), ISSUER, SUBJECT
 * and ASSERTION_FILE (a token of that issuer for that subject). The trust store (javax.net.ssl.trustStore) has the certificate
 * authority.
 */
public final class Walk {
    private static final String ARM = env("ARM");
    private static final String TENANT = env("AZURE_TENANT_ID");
    private static final String SUBSCRIPTION = env("AZURE_SUBSCRIPTION_ID");
    private static final String GROUP = "mgmt";
    private static final String IDENTITY = "app-identity";
    private static final String MACHINES = "/subscriptions/" + SUBSCRIPTION + "/resourceGroups/azure-emulator";
    private static final AzureProfile PROFILE = new AzureProfile(
            TENANT,
            SUBSCRIPTION,
            new AzureEnvironment(Map.of(
                    AzureEnvironment.Endpoint.RESOURCE_MANAGER.identifier(), ARM,
                    AzureEnvironment.Endpoint.ACTIVE_DIRECTORY.identifier(), ARM,
                    AzureEnvironment.Endpoint.MICROSOFT_GRAPH.identifier(), ARM,
                    AzureEnvironment.Endpoint.MANAGEMENT.identifier(), "https://management.core.windows.net/")));

    public static void main(String[] args) throws Exception {
        System.out.println(BinaryData.fromObject(walk()));
        System.exit(0);
    }

    private static Map<String, Object> walk() throws Exception {
        Map<String, Object> facts = new LinkedHashMap<>();
        TokenCredential owner = new ClientSecretCredentialBuilder()
                .tenantId(TENANT)
                .clientId(env("AZURE_CLIENT_ID"))
                .clientSecret(env("AZURE_CLIENT_SECRET"))
                .authorityHost(ARM)
                .disableInstanceDiscovery()
                .build();
        ResourceManager resources = ResourceManager.authenticate(owner, PROFILE).withSubscription(SUBSCRIPTION);
        MsiManager msi = MsiManager.authenticate(owner, PROFILE);
        AuthorizationManager rights = AuthorizationManager.authenticate(owner, PROFILE);

        resources.resourceGroups().define(GROUP).withRegion(Region.US_EAST).withTag("made-by", "walk").create();
        facts.put("group", resources.resourceGroups().getByName(GROUP).id());

        Identity made = msi.identities().define(IDENTITY).withRegion(Region.US_EAST).withExistingResourceGroup(GROUP).create();
        Identity again = made.update().withTag("again", "yes").apply();
        Identity read = msi.identities().getByResourceGroup(GROUP, IDENTITY);
        boolean kept = made.clientId().equals(again.clientId()) && again.clientId().equals(read.clientId())
                && made.principalId().equals(again.principalId()) && again.principalId().equals(read.principalId());
        facts.put("identity", Map.of(
                "id", read.id(),
                "client_id", read.clientId(),
                "principal_id", read.principalId(),
                "tenant_id", read.tenantId(),
                "kept", kept,
                "listed", names(msi.identities().listByResourceGroup(GROUP), Identity::name)));

        FederatedIdentityCredentialsClient credentials = msi.serviceClient().getFederatedIdentityCredentials();
        for (String[] pair : List.of(new String[] {"one", env("SUBJECT")}, new String[] {"two", "system:serviceaccount:other:app"})) {
            credentials.createOrUpdate(GROUP, IDENTITY, pair[0], new FederatedIdentityCredentialInner()
                    .withIssuer(env("ISSUER"))
                    .withSubject(pair[1])
                    .withAudiences(List.of("api://AzureADTokenExchange")));
        }
        FederatedIdentityCredentialInner one = credentials.get(GROUP, IDENTITY, "one");
        facts.put("credential", Map.of("issuer", one.issuer(), "subject", one.subject(), "audiences", one.audiences()));
        facts.put("credentials", names(credentials.list(GROUP, IDENTITY), FederatedIdentityCredentialInner::name));

        // As the identity itself, by its federated credential.
        ComputeManager own = ComputeManager.authenticate(federated(read), PROFILE);
        facts.put("before_grant", error(() -> listMachines(own, "azure-emulator")));
        RoleDefinition role = rights.roleDefinitions().getByScopeAndRoleName(MACHINES, "Reader");
        String grant = UUID.randomUUID().toString();
        rights.roleAssignments().define(grant).forObjectId(read.principalId()).withBuiltInRole(BuiltInRole.READER).withScope(MACHINES).create();
        facts.put("grants", StreamSupport.stream(rights.roleAssignments().listByScope(MACHINES).spliterator(), false)
                .filter(item -> item.principalId().equals(read.principalId()))
                .map(item -> item.name().equals(grant) && item.roleDefinitionId().endsWith(role.name()))
                .collect(Collectors.toList()));
        facts.put("granted_twice", error(() -> rights.roleAssignments()
                .define(UUID.randomUUID().toString())
                .forObjectId(read.principalId())
                .withRoleDefinition(role.id())
                .withScope(MACHINES)
                .create()));
        facts.put("machines", listMachines(own, "azure-emulator"));

        // The first answer is 429 with Retry-After.
        ComputeManager compute = ComputeManager.authenticate(owner, PROFILE);
        long start = System.nanoTime();
        List<String> found = listMachines(compute, GROUP);
        facts.put("throttled", Map.of("machines", found, "waited_ms", (System.nanoTime() - start) / 1_000_000));
        facts.put("refused", error(() ->
                msi.identities().define("refused").withRegion(Region.US_EAST).withExistingResourceGroup(GROUP).create()));

        credentials.delete(GROUP, IDENTITY, "one");
        facts.put("credentials_after", names(credentials.list(GROUP, IDENTITY), FederatedIdentityCredentialInner::name));
        facts.put("exchange_after", exchange(federated(read)));
        rights.roleAssignments().deleteById(MACHINES + "/providers/Microsoft.Authorization/roleAssignments/" + grant);
        msi.identities().deleteByResourceGroup(GROUP, IDENTITY);
        facts.put("after_delete", error(() -> msi.identities().getByResourceGroup(GROUP, IDENTITY)));
        resources.resourceGroups().deleteByName(GROUP);
        facts.put("group_after", resources.resourceGroups().contain(GROUP));
        facts.put("sdk", versions());
        return facts;
    }

    private static TokenCredential federated(Identity identity) {
        return new WorkloadIdentityCredentialBuilder()
                .tenantId(TENANT)
                .clientId(identity.clientId())
                .tokenFilePath(env("ASSERTION_FILE"))
                .authorityHost(ARM)
                .disableInstanceDiscovery()
                .build();
    }

    private static List<String> listMachines(ComputeManager compute, String group) {
        return names(compute.virtualMachines().listByResourceGroup(group), machine -> machine.name());
    }

    private static <T> List<String> names(Iterable<T> items, Function<T, String> name) {
        return StreamSupport.stream(items.spliterator(), false).map(name).sorted().collect(Collectors.toList());
    }

    /** What the SDK's error says; null when there is none. */
    private static Map<String, Object> error(Runnable call) {
        try {
            call.run();
        } catch (ManagementException failure) {
            Map<String, Object> said = new LinkedHashMap<>();
            said.put("type", failure.getClass().getSimpleName());
            said.put("status", failure.getResponse().getStatusCode());
            said.put("code", failure.getValue().getCode());
            said.put("message", failure.getValue().getMessage());
            var details = failure.getValue().getDetails();
            said.put("detail", details == null || details.isEmpty() ? null : details.get(0).getCode());
            return said;
        }
        return null;
    }

    /** What MSAL says; azure-identity hands its error on as the cause of another. */
    private static Map<String, Object> exchange(TokenCredential credential) {
        try {
            credential.getTokenSync(new TokenRequestContext().addScopes("https://management.azure.com/.default"));
        } catch (RuntimeException failure) {
            for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
                if (cause instanceof MsalServiceException) {
                    return Map.of("type", cause.getClass().getSimpleName(), "message", cause.getMessage());
                }
            }
            throw failure;
        }
        return null;
    }

    private static Map<String, String> versions() throws Exception {
        Map<String, String> found = new LinkedHashMap<>();
        for (String name : Arrays.asList("azure-core", "azure-identity", "azure-resourcemanager-authorization",
                "azure-resourcemanager-compute", "azure-resourcemanager-msi", "azure-resourcemanager-resources")) {
            Properties own = new Properties();
            own.load(Walk.class.getResourceAsStream("/" + name + ".properties"));
            found.put(name, own.getProperty("version"));
        }
        return found;
    }

    private static String env(String name) {
        return System.getenv(name);
    }
}
