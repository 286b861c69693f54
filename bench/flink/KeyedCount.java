import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** A running count per key, each update written: bench/jobs/keyed_count.py in Java. */
public final class KeyedCount {
    static final class Key extends RichMapFunction<byte[], String> {
        private transient ObjectMapper mapper;

        @Override
        public void open(OpenContext context) {
            mapper = new ObjectMapper();
        }

        @Override
        public String map(byte[] record) throws Exception {
            return mapper.readTree(record).get("source").textValue();
        }
    }

    static final class Count extends KeyedProcessFunction<String, String, byte[]> {
        private transient ObjectMapper mapper;
        private transient ValueState<Long> count;

        @Override
        public void open(OpenContext context) {
            mapper = new ObjectMapper();
            count = getRuntimeContext().getState(new ValueStateDescriptor<>("count", Types.LONG));
        }

        @Override
        public void processElement(String key, Context context, Collector<byte[]> out) throws Exception {
            Long before = count.value();
            long number = before == null ? 1 : before + 1;
            count.update(number);
            out.collect(mapper.writeValueAsBytes(
                    mapper.createObjectNode().put("source", key).put("count", number)));
        }
    }

    public static void main(String[] arguments) throws Exception {
        Ends ends = new Ends(arguments);
        StreamExecutionEnvironment env = ends.environment();
        env.fromSource(ends.source(), WatermarkStrategy.noWatermarks(), "items")
                .map(new Key())
                .keyBy(key -> key, Types.STRING)
                .process(new Count())
                .sinkTo(ends.sink());
        env.execute("keyed count");
    }
}
