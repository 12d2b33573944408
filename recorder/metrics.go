package recorder

import (
	"github.com/prometheus/client_golang/prometheus"

	"tandem/internal/voter"
	"tandem/recorder/intake"
	"tandem/recorder/journal"
)

// collector reads the recorder's counters when Prometheus asks, so that the
// packet path keeps none for it.
type collector struct {
	intake   *intake.Intake
	journal  *journal.Writer
	reporter *reporter
	voter    *voter.Keeper
	sharing  *sharing
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
	metricSync       = describe("journal_sync_p50_seconds", "Median of a journal sync over ten seconds.")
	metricSyncWorst  = describe("journal_sync_p99_seconds", "99th percentile of a journal sync over ten seconds, and no less than the one in progress.")
	metricDiskFree   = describe("disk_free_bytes", "Bytes free on the recording disk.")
	metricCPU        = describe("cpu_percent", "CPU of this process, 100 is one core.")
	metricMemory     = describe("memory_bytes", "Resident memory.")
	metricHostCPU    = describe("host_cpu_percent", "CPU of the whole machine, 0 to 100.")
	metricLoad1      = describe("load1", "The machine's load average over a minute.")
	metricDiskTotal  = describe("disk_total_bytes", "Size of the recording disk.")
	metricMax        = describe("max_channels", "Channels taken at most.")
	metricRate       = describe("packets_per_second", "RTP packets received in the last second.")
	metricMaxRate    = describe("max_packets_per_second", "The packet rate that counts as full.")
	metricTalking    = describe("talking_channels", "Channels with an RTP packet in the last 200 ms.")
	metricDead       = describe("dead_channels", "Channels with a dialog and neither RTP nor RTCP for rtp.media_dead.")
	metricCatalogLag = describe("catalog_lag_rows", "Catalog rows not shipped yet.")
	metricConnected  = describe("catalog_connected", "1 while rows are being shipped to the shared catalog; absent without one.")
	metricShipped    = describe("catalog_shipped_rows_total", "Catalog rows sent to the shared catalog, those sent again included.")
	metricUnshipped  = describe("catalog_refused_rows_total", "Catalog rows that the shared catalog could not take; the log names them.")
	metricEpoch      = describe("epoch", "The newest epoch that was leased or obeyed; the lowest bit is the director's side.")
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
	gauge(metricSync, c.journal.Sync(50).Seconds())
	gauge(metricSyncWorst, max(c.journal.Sync(99), c.journal.Hangs()).Seconds())
	gauge(metricDiskFree, float64(report.GetDiskFreeBytes()))
	gauge(metricCPU, report.GetCpuPercent())
	gauge(metricMemory, float64(report.GetMemoryBytes()))
	gauge(metricHostCPU, report.GetHostCpuPercent())
	gauge(metricLoad1, report.GetLoad1())
	gauge(metricDiskTotal, float64(report.GetDiskTotalBytes()))
	gauge(metricMax, float64(report.GetMaxChannels()))
	gauge(metricRate, report.GetPacketsPerS())
	gauge(metricMaxRate, report.GetMaxPacketsPerS())
	gauge(metricTalking, float64(latest.talking))
	gauge(metricDead, float64(len(report.GetDeadChannels())))
	gauge(metricCatalogLag, float64(report.GetCatalogLag()))
	if c.sharing != nil {
		c.collectSharing(gauge, counter)
	}
	epoch, _ := c.voter.Seen()
	gauge(metricEpoch, float64(epoch))
	totals := c.intake.Totals()
	counter(metricPackets, totals.Packets)
	counter(metricLost, totals.Lost)
	counter(metricDrops, totals.KernelDrops)
	counter(metricJournal, c.journal.Bytes())
	for reason, n := range totals.Rejected.ByReason() {
		counter(metricRejected, n, reason)
	}
}

func (c *collector) collectSharing(gauge func(*prometheus.Desc, float64), counter func(*prometheus.Desc, uint64, ...string)) {
	state, connected := c.sharing.state(), 0.0
	if state.Connected {
		connected = 1
	}
	gauge(metricConnected, connected)
	counter(metricShipped, state.Rows)
	counter(metricUnshipped, state.Refused)
}
