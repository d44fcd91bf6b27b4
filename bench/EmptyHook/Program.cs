namespace GpuHandoff.Bench.EmptyHook;

static class Program
{
    static int Main() => 0;
}
