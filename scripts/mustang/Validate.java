import org.mustangproject.validator.ZUGFeRDValidator;

/** Writes Mustang's report on each PDF next to it, as FILE.xml. */
public class Validate {
    public static void main(String[] paths) throws java.io.IOException {
        for (String path : paths) {
            String report = new ZUGFeRDValidator().validate(path);
            java.nio.file.Files.writeString(java.nio.file.Path.of(path + ".xml"), report);
        }
    }
}
