import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;

/** JSON in, one field changed, JSON out: bench/jobs/json_map.py in Java, with Jackson (the one that Flink ships). */
public final class JsonMap {
    static final class Enrich extends RichMapFunction<byte[], byte[]> {
        private transient ObjectMapper mapper;

        @Override
        public void open(OpenContext context) {
            mapper = new ObjectMapper();
        }

        @Override
        public byte[] map(byte[] record) throws Exception {
            ObjectNode item = (ObjectNode) mapper.readTree(record);
            item.put("title", item.get("title").textValue().toUpperCase());
            return mapper.writeValueAsBytes(item);
        }
    }

    public static void main(String[] arguments) throws Exception {
        Ends ends = new Ends(arguments);
        StreamExecutionEnvironment env = ends.environment();
        env.fromSource(ends.source(), WatermarkStrategy.noWatermarks(), "items").map(new Enrich()).sinkTo(ends.sink());
        env.execute("json map");
    }
}
