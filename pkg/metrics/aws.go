package metrics

import "time"

// CloudWatch is what its publisher counts of itself since start.
type CloudWatch struct {
	Calls       uint64    // of PutMetricData
	Errors      uint64    // those that failed
	Sent        uint64    // data that CloudWatch took
	Dropped     []Counter // data given up, and services left out, by reason
	Queued      int       // data that wait now
	LastSuccess time.Time // of a call; zero is never
}

// Instance is what is known of the EC2 instance below the node.
type Instance struct {
	Notices     map[string]bool // by reason: whether a notice stands, counted or not
	Errors      uint64          // looks that its metadata service did not answer
	LastSuccess time.Time       // of a look that it did; zero is never
}

func emitCloudWatch(f *families, out *scrape, c CloudWatch) {
	out.add(f.cloudWatchCalls, float64(c.Calls-c.Errors), pairs("outcome", "success"))
	out.add(f.cloudWatchCalls, float64(c.Errors), pairs("outcome", "error"))
	out.add(f.cloudWatchSent, float64(c.Sent), nil)
	for _, d := range c.Dropped {
		out.add(f.cloudWatchDropped, float64(d.Value), pairs("reason", d.Reason))
	}
	out.add(f.cloudWatchQueued, float64(c.Queued), nil)
	out.add(f.cloudWatchSuccess, unixSeconds(c.LastSuccess), nil)
}

func emitInstance(f *families, out *scrape, i Instance) {
	for reason, stands := range i.Notices {
		value := 0.0
		if stands {
			value = 1
		}
		out.add(f.instanceNotice, value, pairs("reason", reason))
	}
	out.add(f.instanceErrs, float64(i.Errors), nil)
	out.add(f.instanceSuccess, unixSeconds(i.LastSuccess), nil)
}

func (f *families) addAWS(add adder) {
	f.cloudWatchCalls = add(counter, "cloudwatch_calls_total",
		"Calls of CloudWatch's PutMetricData by outcome. Source: publisher.", "outcome")
	f.cloudWatchSent = add(counter, "cloudwatch_sent_data_total",
		"Data that CloudWatch took. Source: publisher.")
	f.cloudWatchDropped = add(counter, "cloudwatch_dropped_data_total",
		"Data for CloudWatch that were given up, by reason. Source: publisher.", "reason")
	f.cloudWatchQueued = add(gauge, "cloudwatch_queued_data",
		"Data that wait for CloudWatch to take them. Source: publisher.")
	f.cloudWatchSuccess = add(gauge, "cloudwatch_last_success_timestamp_seconds",
		"When CloudWatch last took data, in Unix seconds; 0 is never. Source: publisher.")
	f.instanceNotice = add(gauge, "instance_notice",
		"1 while a notice says that the instance is on its way out, else 0, by reason. Source: instance metadata, ECS.", "reason")
	f.instanceErrs = add(counter, "instance_metadata_errors_total",
		"Looks for notices that the instance metadata service did not answer. Source: instance.")
	f.instanceSuccess = add(gauge, "instance_metadata_last_success_timestamp_seconds",
		"When the instance metadata service last answered, in Unix seconds; 0 is never. Source: instance.")
}
