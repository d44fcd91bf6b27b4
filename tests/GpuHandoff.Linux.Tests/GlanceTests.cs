using GpuHandoff.Guests;
using GpuHandoff.Machines;

namespace GpuHandoff.Linux.Tests;

/// <summary>Whether a VM is any business of ours is told by few bytes; in doubt it is.</summary>
public sealed class GlanceTests : IDisposable
{
    readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("cores: 2\nname: web\n", false)]
    [InlineData("#hostpci0: 05:00\ncores: 2\n", false)]
    [InlineData("hostpci0: 05:00\n", true)]
    [InlineData("cores: 2\nhostpci12: mapping=gpu\n", true)]
    [InlineData("cores: 2\n[snap]\nhostpci0: 05:00\n", true)]
    [InlineData("args: -device vfio-pci,host=05:00.0\n", true)]
    [InlineData("args: -cpu host,kvm=off\n", false)]
    [InlineData("", true)]
    public void A_configuration_with_a_word_of_a_device_is_looked_into(string text, bool mayHave)
    {
        File.WriteAllText(_folder["101.conf"], text);
        Glance.MayHaveDevices(_folder["101.conf"]).ShouldBe(mayHave);
    }

    [Fact]
    public void A_configuration_that_is_not_there_or_is_too_large_is_looked_into()
    {
        Glance.MayHaveDevices(_folder["101.conf"]).ShouldBeTrue();
        File.WriteAllText(_folder["101.conf"], new string('a', 5 << 20));
        Glance.MayHaveDevices(_folder["101.conf"]).ShouldBeTrue();
        File.WriteAllText(_folder["102.conf"], new string('a', 100_000));
        Glance.MayHaveDevices(_folder["102.conf"]).ShouldBeFalse();
    }

    [Fact]
    public void A_lease_counts_for_the_VM_that_has_it_and_one_that_cannot_be_read_for_all()
    {
        Glance.MayBeLent(_folder["nosuch"], "101").ShouldBeFalse();
        var gpu = new PciAddress(0, 5, 0, 0);
        var ledger = new FileLedger(_folder["state"], _folder["run"]);
        ledger.Lend(new("boot", gpu, new(VmManager.Proxmox, "101") { Name = "games" }, [new(gpu, new("nvidia"))], TimeSpan.FromSeconds(1)));
        Glance.MayBeLent(_folder["state"], "101").ShouldBeTrue();
        Glance.MayBeLent(_folder["state"], "102").ShouldBeFalse();
        Glance.MayBeLent(_folder["state"], "10").ShouldBeFalse();
        Glance.MayBeLent(_folder["state"], "1010").ShouldBeFalse();
        ledger.EndLease(gpu);
        Glance.MayBeLent(_folder["state"], "101").ShouldBeFalse();
        File.WriteAllText(_folder["state/lease-0000:06:00.0.json"], "");
        Glance.MayBeLent(_folder["state"], "102").ShouldBeTrue();
    }
}
