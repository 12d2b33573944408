package recorder

import (
	"github.com/prometheus/client_golang/prometheus"

	"tandem/recorder/intake"
	"tandem/recorder/journal"
)

// collector reads the recorder's counters when Prometheus asks, so that the
// packet path keeps none for it.
type collector struct {
	intake   *intake.Intake
	journal  *journal.Writer
	reporter *reporter
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tandem_recorder_"+name, help, labels, nil)
}

var (
	metricReady      = describe("ready", "1 while new channels are taken.")
	metricChannels   = describe("channels", "Channels open.")
	metricLegs       = describe("legs", "Legs being recorded.")
	metricPackets    = describe("packets_total", "RTP packets put in the journal.")
	metricLost       = describe("lost_packets_total", "RTP packets missing by sequence number.")
	metricRejected   = describe("rejected_datagrams_total", "Datagrams counted and not kept.", "reason")
	metricDrops      = describe("socket_drops_total", "Datagrams the kernel dropped because a socket's buffer was full.")
	metricJournal    = describe("journal_bytes_total", "Bytes written to the journal.")
	metricQueue      = describe("journal_queue_ratio", "Blocks waiting for the disk, of the bound.")
	metricLag        = describe("journal_lag_bytes", "Journal bytes not in media files yet.")
	metricSync       = describe("journal_sync_p99_seconds", "99th percentile of a journal sync over ten seconds.")
	metricDiskFree   = describe("disk_free_bytes", "Bytes free on the recording disk.")
	metricCPU        = describe("cpu_percent", "CPU of this process, 100 is one core.")
	metricMemory     = describe("memory_bytes", "Resident memory.")
	metricCatalogLag = describe("catalog_lag_rows", "Catalog rows not shipped yet.")
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	latest, _ := c.reporter.last()
	report := latest.load
	ready := 0.0
	if report.GetReady() {
		ready = 1
	}
	gauge(metricReady, ready)
	gauge(metricChannels, float64(report.GetChannels()))
	gauge(metricLegs, float64(report.GetLegs()))
	gauge(metricQueue, c.journal.Queue())
	gauge(metricLag, float64(report.GetJournalLagBytes()))
	gauge(metricSync, c.journal.SyncP99().Seconds())
	gauge(metricDiskFree, float64(report.GetDiskFreeBytes()))
	gauge(metricCPU, report.GetCpuPercent())
	gauge(metricMemory, float64(report.GetMemoryBytes()))
	gauge(metricCatalogLag, float64(report.GetCatalogLag()))
	totals := c.intake.Totals()
	counter(metricPackets, totals.Packets)
	counter(metricLost, totals.Lost)
	counter(metricDrops, totals.KernelDrops)
	counter(metricJournal, c.journal.Bytes())
	for reason, n := range totals.Rejected.ByReason() {
		counter(metricRejected, n, reason)
	}
}
