using System.Runtime.Versioning;

// One VM at a time: the lab's own lock would make a second one wait for the first for ever.
[assembly: CollectionBehavior(DisableTestParallelization = true)]
[assembly: SupportedOSPlatform("linux")]
