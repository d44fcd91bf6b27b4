using System.Diagnostics;
using System.Text;

namespace GpuHandoff.Cli.Tests;

/// <summary>
/// The program as libvirt calls it. What these tests name is on no machine: no address of a GPU, and no domain that could have
/// been lent one. A hand-over by this door is the lab's part.
/// </summary>
public class LibvirtHook
{
    /// <summary>A bus that no host has.</summary>
    const string Nowhere = "<source><address domain='0x7ffffff' bus='0xff' slot='0x1f' function='0x7'/></source>";

    static readonly string _name = $"no such domain {Guid.NewGuid()}";

    [Fact]
    public void A_domain_without_a_device_of_the_hosts_starts_without_a_word() =>
        Call("prepare", "begin", Domain("")).ShouldBe((0, "", ""));

    [Fact]
    public void A_domain_with_a_device_that_is_no_gpu_starts_without_a_word() =>
        Call("prepare", "begin", Domain($"<hostdev mode='subsystem' type='pci' managed='yes'>{Nowhere}</hostdev>")).ShouldBe((0, "", ""));

    [Theory]
    [InlineData("start", "begin")]
    [InlineData("started", "begin")]
    [InlineData("stopped", "end")]
    [InlineData("release", "end")]
    [InlineData("migrate", "begin")]
    [InlineData("restore", "begin")]
    [InlineData("reconnect", "begin")]
    [InlineData("attach", "begin")]
    public void Every_other_word_of_libvirts_is_no_trouble_and_says_nothing_on_stdout_where_libvirt_would_take_it_for_a_domain(string operation, string stage)
    {
        var (exit, output, error) = Call(operation, stage, "garbage");
        (exit, output).ShouldBe((0, ""), error);
    }

    [Theory]
    [InlineData("", "nothing to read")]
    [InlineData("garbage", "line 1: ")]
    [InlineData("<network><name>default</name></network>", "it is a <network>")]
    [InlineData("<domain><name>somebody</name></domain>", "it is the domain somebody's")]
    [InlineData("<domain><devices><hostdev type='pci'><source><address bus='0x05' slot='99'/></source></hostdev></devices></domain>", "slot is \"99\"")]
    public void A_start_whose_xml_cannot_be_read_is_refused_with_the_reason(string xml, string reason)
    {
        var (exit, output, error) = Call("prepare", "begin", xml);
        (exit, output).ShouldBe((1, ""), error);
        error.ShouldContain($"domain {_name} cannot be read");
        error.ShouldContain(reason);
        error.ShouldContain("hint: ");
        error.ShouldContain("nothing was changed");
    }

    [Fact]
    public void Bytes_that_are_no_text_are_refused()
    {
        var (exit, _, error) = Tool.Run(("LC_ALL", "C"), [0x3c, 0xff, 0xfe, 0x3e], [_name, "prepare", "begin", "-"]);
        exit.ShouldBe(1);
        error.ShouldContain("no UTF-8");
    }

    [Fact]
    public void More_than_any_domain_has_is_refused_and_not_read_to_its_end()
    {
        var watch = Stopwatch.StartNew();
        var (exit, _, error) = Call("prepare", "begin", new string('x', 20 * 1024 * 1024));
        exit.ShouldBe(1);
        error.ShouldContain("longer than 5 MB");
        watch.Elapsed.ShouldBeLessThan(TimeSpan.FromSeconds(20));
    }

    /// <summary>Names of ours are names like any other.</summary>
    [Theory]
    [InlineData("--hand")]
    [InlineData("status")]
    [InlineData("--help")]
    [InlineData("-")]
    [InlineData("тест 😀 & \"more\"")]
    public void A_domain_may_be_called_as_it_likes(string name) => Tool.Run(
        ("LC_ALL", "C"), Encoding.UTF8.GetBytes($"<domain><name>{name.Replace("&", "&amp;")}</name></domain>"), [name, "prepare", "begin", "-"]).ShouldBe((0, "", ""));

    static (int Exit, string Out, string Err) Call(string operation, string stage, string xml) =>
        Tool.Run(("LC_ALL", "C"), Encoding.UTF8.GetBytes(xml), [_name, operation, stage, "-"]);

    static string Domain(string devices) => $"<domain type='kvm'><name>{_name}</name><devices>{devices}</devices></domain>";
}
