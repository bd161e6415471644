import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Posts a body a few times with a client at its defaults, and prints each status and answer. */
public class Post {
    public static void main(String[] arguments) throws Exception {
        String body = arguments[1];
        int times = Integer.parseInt(arguments[2]);
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0]))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body));
        if (arguments.length > 3) {
            request.header("Authorization", "Bearer " + arguments[3]);
        }
        HttpClient client = HttpClient.newHttpClient();
        for (int number = 0; number < times; number++) {
            HttpResponse<String> answer = client.send(
                request.build(), HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
