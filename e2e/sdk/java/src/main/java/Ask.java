import com.azure.core.credential.TokenCredential;
import com.azure.core.credential.TokenRequestContext;
import com.azure.identity.DefaultAzureCredentialBuilder;
import com.azure.identity.ManagedIdentityCredentialBuilder;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Locale;
import java.util.Properties;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Asks for a token with azure-identity twice, and prints what came as one JSON line. */
public final class Ask {
    private static final TokenRequestContext VAULT =
            new TokenRequestContext().addScopes("https://vault.azure.net/.default");

    public static void main(String[] args) throws Exception {
        TokenCredential credential = args[0].equals("named")
                ? new ManagedIdentityCredentialBuilder().clientId(System.getenv("PODID_CLIENT_ID")).build()
                : new DefaultAzureCredentialBuilder().build();
        long start = System.nanoTime();
        String token = credential.getTokenSync(VAULT).getToken();
        long first = System.nanoTime();
        credential.getTokenSync(VAULT);
        long again = System.nanoTime();
        String claims = new String(Base64.getUrlDecoder().decode(token.split("\\.")[1]), StandardCharsets.UTF_8);
        Properties own = new Properties();
        own.load(Ask.class.getResourceAsStream("/azure-identity.properties"));
        System.out.printf(
                Locale.ROOT,
                "{\"version\":\"%s\",\"appid\":\"%s\",\"aud\":\"%s\",\"first_ms\":%.1f,\"again_ms\":%.1f}%n",
                own.getProperty("version"),
                claim(claims, "appid"),
                claim(claims, "aud"),
                (first - start) / 1e6,
                (again - first) / 1e6);
        System.exit(0);
    }

    private static String claim(String claims, String name) {
        Matcher found = Pattern.compile("\"" + name + "\"\\s*:\\s*\"([^\"]*)\"").matcher(claims);
        if (!found.find()) {
            throw new IllegalStateException("no claim " + name);
        }
        return found.group(1);
    }
}
