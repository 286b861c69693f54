import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.serialization.ByteArraySchema;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.sink.KafkaSinkBuilder;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** What the two jobs have in common, with the same command line as bench/jobs/ends.py. */
final class Ends {
    private final Map<String, String> options = new HashMap<>();
    private final List<String> sourceProperties = new ArrayList<>();
    private final List<String> sinkProperties = new ArrayList<>();

    Ends(String[] arguments) {
        for (int at = 0; at < arguments.length; at++) {
            switch (arguments[at]) {
                case "--unbounded" -> options.put("--unbounded", "");
                case "--source-property" -> sourceProperties.add(arguments[++at]);
                case "--sink-property" -> sinkProperties.add(arguments[++at]);
                default -> options.put(arguments[at], arguments[++at]);
            }
        }
    }

    StreamExecutionEnvironment environment() {
        Configuration configuration = new Configuration();
        configuration.setString("execution.checkpointing.dir", options.get("--checkpoints"));
        configuration.setString("execution.checkpointing.storage", "filesystem");
        configuration.setString("pipeline.object-reuse", "true");
        // A failure ends the run instead of making it slow.
        configuration.setString("restart-strategy.type", "none");
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(1, configuration);
        env.enableCheckpointing(1000);
        return env;
    }

    KafkaSource<byte[]> source() {
        KafkaSourceBuilder<byte[]> builder = KafkaSource.<byte[]>builder()
                .setBootstrapServers(options.get("--bootstrap"))
                .setTopics(options.get("--input"))
                .setGroupId(options.get("--run-id"))
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setValueOnlyDeserializer(new ByteArraySchema());
        if (!options.containsKey("--unbounded")) {
            builder.setBounded(OffsetsInitializer.latest());
        }
        for (String each : sourceProperties) {
            builder.setProperty(each.split("=", 2)[0], each.split("=", 2)[1]);
        }
        return builder.build();
    }

    KafkaSink<byte[]> sink() {
        boolean exactlyOnce = options.get("--guarantee").equals("exactly-once");
        KafkaSinkBuilder<byte[]> builder = KafkaSink.<byte[]>builder()
                .setBootstrapServers(options.get("--bootstrap"))
                .setRecordSerializer(KafkaRecordSerializationSchema.<byte[]>builder()
                        .setTopic(options.get("--output"))
                        .setValueSerializationSchema(new ByteArraySchema())
                        .build())
                .setDeliveryGuarantee(exactlyOnce ? DeliveryGuarantee.EXACTLY_ONCE : DeliveryGuarantee.AT_LEAST_ONCE)
                .setProperty("transaction.timeout.ms", "900000");
        if (exactlyOnce) {
            builder.setTransactionalIdPrefix(options.get("--run-id"));
        }
        for (String each : sinkProperties) {
            builder.setProperty(each.split("=", 2)[0], each.split("=", 2)[1]);
        }
        return builder.build();
    }
}
